import { fakeEngine } from '../fakes/fake-runtime.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'
import { runtimeContract } from './runtime-contract.ts'

runtimeContract('fake', async () => {
  const clock = virtualClock()
  const engine = fakeEngine({ clock })
  engine.images.add('busybox:1')
  const open = () => engine.runtime({ clusterId: 'c', nodeId: 'n-1' })
  return {
    runtime: open(),
    reopen: async () => open(),
    clock,
    advance: (ms) => clock.advance(ms),
    image: 'busybox:1',
    runsCommands: false,
    close: async () => {},
  }
})
