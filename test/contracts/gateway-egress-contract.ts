/** What every gateway engine promises of the way from a caller to an instance: published ports, virtual addresses, who speaks for whom. */
import { describe, expect, it } from 'vitest'
import { createProofMinter } from '../../agent/gateway/proof.ts'
import { anEndpoint, anIngressPort, aRoute, ask, deadPort, KEYED, PUBLIC, talk, tcpUpstream } from './gateway-bed.ts'
import { type EngineBed, get, until } from './gateway-engine-bed.ts'

/** Of `gatewayContract`, in its bed. */
export function egressContract(bed: EngineBed): void {
  describe('egress', () => {
    it('V: balances a published port over instances and loses no request while they come and go', async () => {
      const published = await deadPort()
      const ups = await Promise.all(['a', 'b', 'c'].map((body) => bed.newUpstream(body)))
      const ports = await Promise.all(
        ups.map((up, index) =>
          bed.engine.openIngress(anIngressPort({ instance: `shop/web/${index + 1}/1`, access: PUBLIC, targetPort: up.port })),
        ),
      )
      const endpoints = ports.map((gatewayPort, index) => anEndpoint({ instance: `shop/web/${index + 1}/1`, gatewayPort }))
      const remote = endpoints.map((endpoint, index) => (index === 2 ? { ...endpoint, node: 'n-2' } : endpoint))
      await bed.engine.setRoutes([aRoute({ publishedPorts: [published], endpoints: remote })])
      const bodies = new Set<string>()
      let stop = false
      let failed = 0
      let done = 0
      const drive = async () => {
        while (!stop) {
          const answer = await ask(published, get('/'))
          done += 1
          if (answer.status !== 200) failed += 1
          bodies.add(answer.body)
        }
      }
      const drivers = [drive(), drive(), drive()]
      await until(() => bodies.size === 3)
      for (let round = 0; round < 3; round += 1) {
        // One goes without a word to the routes, as when its container dies.
        await bed.engine.closeIngress('shop/web/2/1', 0)
        const seen = done
        await until(() => done > seen + 20)
        await bed.engine.setRoutes([aRoute({ publishedPorts: [published], endpoints: remote.slice(0, 1) })])
        const port = await bed.engine.openIngress(
          anIngressPort({ instance: 'shop/web/2/1', access: PUBLIC, targetPort: ups[1]?.port ?? 0 }),
        )
        remote[1] = anEndpoint({ instance: 'shop/web/2/1', gatewayPort: port })
        await bed.engine.setRoutes([aRoute({ publishedPorts: [published], endpoints: remote })])
      }
      stop = true
      await Promise.all(drivers)
      expect(failed).toBe(0)
    })

    it('answers 503 when no instance is ready, and goes elsewhere when one cannot be reached', async () => {
      const published = await deadPort()
      await bed.engine.setRoutes([aRoute({ publishedPorts: [published] })])
      expect((await ask(published, get('/'))).body).toContain('no-endpoint')
      const port = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: bed.upstream.port }))
      const dead = anEndpoint({ instance: 'shop/web/2/1', node: 'n-2', gatewayPort: await deadPort() })
      await bed.engine.setRoutes([
        aRoute({ publishedPorts: [published], endpoints: [anEndpoint({ gatewayPort: port, node: 'n-3' }), dead] }),
      ])
      for (let index = 0; index < 12; index += 1) expect((await ask(published, get('/'))).status).toBe(200)
    })

    it('speaks for a calling container to the same app on another node; nobody else can say so', async () => {
      bed.callers.set('127.0.0.1', { instance: 'shop/front/1/1', service: 'shop/front' })
      const far = await bed.newEngine({ nodeId: 'n-2', callers: new Map() })
      bed.keys.policies.set('shop/web', { ...KEYED, anyKey: false })
      const gatewayPort = await far.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
      const published = await deadPort()
      await bed.engine.setRoutes([aRoute({ publishedPorts: [published], endpoints: [anEndpoint({ node: 'n-2', gatewayPort })] })])
      expect((await ask(published, get('/'))).status).toBe(200)
      expect(bed.upstream.seen[0]?.headers['x-rubato-caller']).toBe('shop/front')
      expect(bed.upstream.seen[0]?.rawHeaders.join()).not.toContain('x-rubato-proof')

      bed.callers.set('127.0.0.1', { instance: 'blog/front/1/1', service: 'blog/front' })
      expect((await ask(published, get('/'))).status).toBe(403)
      bed.callers.clear()
      expect((await ask(published, get('/'))).status).toBe(401)
      const forged = createProofMinter('n-9', () => Buffer.from('another secret')).mint('shop/front', 'shop/web/1/1', Date.now())
      expect((await ask(gatewayPort, get('/', `X-Rubato-Proof: ${forged}`, 'X-Rubato-Caller: shop/front'))).status).toBe(401)
      const elsewhere = createProofMinter('n-1', () => bed.keys.meshSecret).mint('shop/front', 'shop/web/9/9', Date.now())
      expect((await ask(gatewayPort, get('/', `X-Rubato-Proof: ${elsewhere}`))).status).toBe(401)
      expect(bed.upstream.seen).toHaveLength(1)
    })

    it('relays TCP with the caller proven, whichever side speaks first', async () => {
      const greeter = await tcpUpstream((socket) => {
        socket.write('hello ')
        socket.on('data', (chunk) => socket.end(chunk.toString().toUpperCase()))
      })
      bed.cleanups.push(() => greeter.close())
      const far = await bed.newEngine({ nodeId: 'n-2', callers: new Map() })
      const tcp = (access = KEYED) =>
        far.openIngress(anIngressPort({ containerPort: 5432, protocol: 'tcp', access, targetPort: greeter.port }))
      const gatewayPort = await tcp()
      const published = await deadPort()
      const route = aRoute({ containerPort: 5432, protocol: 'tcp', publishedPorts: [published] })
      await bed.engine.setRoutes([{ ...route, endpoints: [anEndpoint({ node: 'n-2', gatewayPort })] }])
      expect(await talk(published, 'x')).toBe('') // an outsider of a service that is not public
      expect(await talk(gatewayPort, 'GET / HTTP/1.1\r\n\r\n')).toBe('')
      bed.callers.set('127.0.0.1', { instance: 'shop/api/1/1', service: 'shop/api' })
      expect(await talk(published, 'world')).toBe('hello WORLD')
      bed.callers.clear()
      bed.keys.policies.set('shop/web', PUBLIC)
      expect(await talk(published, 'all')).toBe('hello ALL')
      expect(await talk(gatewayPort, 'direct')).toBe('hello DIRECT')
    })

    it('no instance port is put where an app publishes', async () => {
      const routes = async (...publishedPorts: number[]) => bed.engine.setRoutes([aRoute({ publishedPorts, endpoints: [] })])
      const first = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: bed.upstream.port }))
      // Whichever port comes next would be one of these.
      const near = Array.from({ length: 8 }, (_, index) => first + 1 + index)
      await routes(...near)
      const second = await bed.engine.openIngress(
        anIngressPort({ instance: 'shop/web/2/1', access: PUBLIC, targetPort: bed.upstream.port }),
      )
      expect(near).not.toContain(second)
      await routes()
    })

    it('a tcp port that is not published is closed to everybody who is not of the app', async () => {
      const spoken = await tcpUpstream((socket) => socket.end('hello'))
      bed.cleanups.push(() => spoken.close())
      const access = { ...KEYED, public: false, sameApp: true, anyKey: true }
      const port = await bed.engine.openIngress(
        anIngressPort({ containerPort: 5432, protocol: 'tcp', access, targetPort: spoken.port }),
      )
      expect(await talk(port, 'x\n')).toBe('')
      bed.callers.set('127.0.0.1', { instance: 'blog/api/1/1', service: 'blog/api' })
      expect(await talk(port, 'x\n')).toBe('')
      bed.callers.set('127.0.0.1', { instance: 'shop/api/1/1', service: 'shop/api' })
      expect(await talk(port, 'x\n')).toBe('hello')
    })

    it('a published port that is taken is reported, and the others work', async () => {
      const blocker = await bed.newUpstream('blocker')
      const free = await deadPort()
      const gatewayPort = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: bed.upstream.port }))
      await bed.engine.setRoutes([aRoute({ publishedPorts: [blocker.port, free], endpoints: [anEndpoint({ gatewayPort })] })])
      expect(bed.problems.join()).toContain(`${blocker.port}`)
      expect((await ask(free, get('/'))).status).toBe(200)
    })
  })
}
