/**
 * The demo's service: answers /work after a fixed time, holds at most CAPACITY requests at once (the rest queue inside), and
 * reports how full it is as its own load, 0–100 (requirement M1). Plain Node, no dependencies.
 */
import { createServer } from 'node:http'

const port = Number(process.env.PORT ?? 8080)
const capacity = Number(process.env.CAPACITY ?? 8)
const workMs = Number(process.env.WORK_MS ?? 80)
const loadUrl = process.env.RUBATO_LOAD_URL

let running = 0
/** Integral of busy places over time since the last report, so that the load is a mean and not a snapshot. */
let busyMs = 0
let changedAt = performance.now()
let reportedAt = changedAt
const waiting = []

function account() {
  const now = performance.now()
  busyMs += running * (now - changedAt)
  changedAt = now
}

function enter(done) {
  if (running >= capacity) {
    waiting.push(done)
    return
  }
  account()
  running += 1
  setTimeout(() => {
    done()
    account()
    running -= 1
    const next = waiting.shift()
    if (next) enter(next)
  }, workMs)
}

const server = createServer((request, response) => {
  if (request.url === '/health') {
    response.end('ok\n')
    return
  }
  if (request.url?.startsWith('/work')) {
    enter(() => response.end('done\n'))
    return
  }
  response.statusCode = 404
  response.end('only /work and /health\n')
})
server.keepAliveTimeout = 60_000
server.listen(port, process.env.HOST ?? '0.0.0.0')

async function report() {
  account()
  const now = performance.now()
  const load = Math.min(100, (busyMs / (capacity * Math.max(1, now - reportedAt))) * 100)
  busyMs = 0
  reportedAt = now
  try {
    await fetch(loadUrl, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ load }) })
  } catch {
    // The agent may be restarting; the next report is a second away.
  }
}
if (loadUrl) setInterval(report, 1000)

// Finish what is under way, then go: the gateway sends nothing new by now.
process.on('SIGTERM', () => server.close(() => process.exit(0)))
