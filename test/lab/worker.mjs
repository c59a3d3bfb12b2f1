/**
 * The service of the end-to-end tests: answers who it is and which version, calls another service by its plain name, and reports
 * as its own load what the test's dial says. Plain Node, no dependencies.
 */
import { createServer, get } from 'node:http'

const {
  RUBATO_INSTANCE: instance = 'nobody',
  RUBATO_LOAD_URL: loadUrl,
  VERSION: version = '1',
  BACK: back,
  DIAL: dial,
} = process.env
const broken = process.env.BROKEN === '1'

const server = createServer((request, response) => {
  if (request.url === '/health') {
    response.statusCode = broken ? 500 : 200
    response.end(broken ? 'broken\n' : 'ok\n')
  } else if (request.url === '/call') {
    get(back, { agent: false, timeout: 5_000 }, (answer) => {
      response.statusCode = answer.statusCode ?? 502
      answer.pipe(response)
    }).on('error', (error) => {
      response.statusCode = 502
      response.end(`${error.message}\n`)
    })
  } else if (request.url === '/slow') {
    setTimeout(() => response.end('done\n'), 1_000)
  } else {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ instance, version, caller: request.headers['x-rubato-caller'] ?? null }))
  }
})
server.keepAliveTimeout = 60_000
server.listen(8080, '0.0.0.0', () => process.stdout.write(`${instance} serves version ${version}\n`))

async function report() {
  try {
    const load = Number(await (await fetch(`${dial}?instance=${encodeURIComponent(instance)}`)).text())
    await fetch(loadUrl, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ load }) })
  } catch {
    // The dial or the agent is away for a moment; the next report follows.
  }
}
// One that never gets healthy takes no share of the work, so it must not take one of the load.
if (dial && loadUrl && !broken) setInterval(report, 500)

// Finish what is under way, then go: the gateway sends nothing new by now.
process.on('SIGTERM', () => server.close(() => process.exit(0)))
