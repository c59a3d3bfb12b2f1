/** The network's side of probes: one HTTP request or one TCP connection to a container. */
import { request } from 'node:http'
import { connect } from 'node:net'
import type { Clock } from '../../shared/clock.ts'
import type { ProbeResult } from './plan-health.ts'

/** How a probe reaches a container; a model of the network stands in for it in simulations. */
export interface ProbeNetwork {
  /** GET; 2xx and 3xx are healthy. Never rejects. */
  http(target: { address: string; port: number; path: string }, timeoutMs: number, signal: AbortSignal): Promise<ProbeResult>
  /** Healthy when the connection is accepted. Never rejects. */
  tcp(target: { address: string; port: number }, timeoutMs: number, signal: AbortSignal): Promise<ProbeResult>
}

export function realProbeNetwork(clock: Clock): ProbeNetwork {
  return {
    http: ({ address, port, path }, timeoutMs, signal) =>
      bounded(clock, timeoutMs, signal, (done) => {
        const call = request(
          {
            host: address,
            port,
            path,
            method: 'GET',
            agent: false,
            headers: { 'user-agent': 'rubato-probe', connection: 'close' },
          },
          (response) => {
            const status = response.statusCode ?? 0
            // The body is of no interest; reading on could take for ever.
            response.destroy()
            done(status >= 200 && status < 400 ? { healthy: true, text: '' } : failed(`GET ${path} answered ${status}`))
          },
        )
        call.on('error', (error) => done(failed(`GET ${path} on port ${port}: ${error.message}`)))
        call.end()
        return () => call.destroy()
      }),
    tcp: ({ address, port }, timeoutMs, signal) =>
      bounded(clock, timeoutMs, signal, (done) => {
        const socket = connect({ host: address, port }, () => done({ healthy: true, text: '' }))
        socket.on('error', (error) => done(failed(`connection to port ${port}: ${error.message}`)))
        return () => socket.destroy()
      }),
  }
}

function failed(text: string): ProbeResult {
  return { healthy: false, text }
}

/** Runs `begin` until it calls done, the time is over or the signal aborts; then ends it. */
function bounded(
  clock: Clock,
  timeoutMs: number,
  signal: AbortSignal,
  begin: (done: (result: ProbeResult) => void) => () => void,
): Promise<ProbeResult> {
  return new Promise((resolve) => {
    let over = false
    let end = () => {}
    const done = (result: ProbeResult) => {
      if (over) return
      over = true
      timer.cancel()
      signal.removeEventListener('abort', onAbort)
      end()
      resolve(result)
    }
    const onAbort = () => done(failed('the probe was cancelled'))
    const timer = clock.setTimer(timeoutMs, () => done(failed(`no answer within ${timeoutMs} ms`)))
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) return onAbort()
    end = begin(done)
    if (over) end()
  })
}
