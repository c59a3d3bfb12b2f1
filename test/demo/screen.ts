/** The demo's live view: redrawn in place on a terminal, one line every few seconds elsewhere. */

export interface Frame {
  readonly seconds: number
  readonly stage: string
  readonly nodes: readonly {
    readonly id: string
    readonly state: string
    readonly instances: number
    readonly capacity: string
  }[]
  readonly instances: readonly {
    readonly id: string
    readonly node: string
    readonly phase: string
    readonly load: number | null
  }[]
  readonly desired: number
  readonly loadPercent: number | null
  readonly thresholdPercent: number | null
  readonly requests: { readonly ok: number; readonly failed: number; readonly denied: number; readonly perSecond: number }
  readonly concurrency: number
  readonly lastEvents: readonly string[]
}

export interface Screen {
  draw(frame: Frame): void
  /** A line that stays. */
  say(line: string): void
}

export function createScreen(out: NodeJS.WriteStream): Screen {
  const live = out.isTTY === true
  let drawn = 0
  let lastLineAt = Number.NEGATIVE_INFINITY
  const clear = () => {
    if (drawn > 0) out.write(`\u001b[${drawn}A\u001b[J`)
    drawn = 0
  }
  return {
    say(line) {
      clear()
      out.write(`${line}\n`)
    },
    draw(frame) {
      if (!live) {
        if (frame.seconds - lastLineAt < 5) return
        lastLineAt = frame.seconds
        out.write(`${oneLine(frame)}\n`)
        return
      }
      clear()
      const width = Math.min(out.columns ?? 80, 110)
      const lines = page(frame).map((line) => line.slice(0, width))
      out.write(`${lines.join('\n')}\n`)
      drawn = lines.length
    },
  }
}

function oneLine(frame: Frame): string {
  const ready = frame.instances.filter((instance) => instance.phase === 'ready').length
  const load = frame.loadPercent === null ? '–' : `${Math.round(frame.loadPercent)} %`
  return `${String(Math.round(frame.seconds)).padStart(4)} s  ${frame.stage.padEnd(8)} nodes ${frame.nodes.length}  instances ${ready}/${frame.desired}  load ${load} of ${Math.round(frame.thresholdPercent ?? 0)} %  callers ${frame.concurrency}  ${frame.requests.perSecond} req/s  ok ${frame.requests.ok}  failed ${frame.requests.failed}  refused ${frame.requests.denied}`
}

function page(frame: Frame): readonly string[] {
  const lines = [
    '',
    `── ${Math.round(frame.seconds)} s · traffic ${frame.stage} · ${frame.concurrency} callers · ${frame.requests.perSecond} requests/s`,
    '',
  ]
  lines.push('   NODE                    STATE      INSTANCES  CAPACITY')
  for (const node of frame.nodes)
    lines.push(`   ${node.id.padEnd(23)} ${node.state.padEnd(10)} ${String(node.instances).padStart(9)}  ${node.capacity}`)
  lines.push('', '   INSTANCE                NODE                    PHASE      LOAD')
  for (const instance of frame.instances.slice(0, 14))
    lines.push(`   ${instance.id.padEnd(23)} ${instance.node.padEnd(23)} ${instance.phase.padEnd(10)} ${bar(instance.load)}`)
  if (frame.instances.length > 14) lines.push(`   … and ${frame.instances.length - 14} more`)
  const threshold = frame.thresholdPercent === null ? '' : `, threshold ${Math.round(frame.thresholdPercent)} %`
  lines.push(
    '',
    `   wanted ${frame.desired} · load ${frame.loadPercent === null ? '–' : `${Math.round(frame.loadPercent)} %`}${threshold}`,
  )
  lines.push(
    `   requests: ${frame.requests.ok} ok · ${frame.requests.failed} failed · ${frame.requests.denied} without a key, refused`,
    '',
  )
  for (const event of frame.lastEvents) lines.push(`   ${event}`)
  return lines
}

function bar(load: number | null): string {
  if (load === null) return '–'
  const filled = Math.round(load / 5)
  return `${'█'.repeat(filled)}${'░'.repeat(20 - filled)} ${String(Math.round(load)).padStart(3)} %`
}
