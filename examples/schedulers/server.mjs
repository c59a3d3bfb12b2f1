/**
 * The same scheduler as a service of its own, which may be written in any language:
 * `node examples/schedulers/server.mjs 7900`. With TOKEN set it answers only those who bring it.
 */
import { createServer } from 'node:http'
import { schedule } from './coolest.mjs'

const server = createServer(async (request, response) => {
  if (process.env.TOKEN && request.headers.authorization !== `Bearer ${process.env.TOKEN}`) {
    response.writeHead(401).end()
    return
  }
  let text = ''
  for await (const part of request) text += part
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(schedule(JSON.parse(text))))
})
server.listen(Number(process.argv[2] ?? 7900), '127.0.0.1', () => {
  process.stdout.write(`listening on ${server.address().port}\n`)
})
