/** Promises that every Store keeps (design §10). Run against the fake and each real one. */
import { expect, it } from 'vitest'
import { MAX_COMMIT_BYTES, MAX_COMMIT_OPERATIONS } from '../../coordinator/state/store.ts'
import type { CommitOutcome, Store, StoreOperation } from '../../coordinator/state/store.ts'
import type { EventDraft } from '../../shared/model/event.ts'

/** One place that stores are opened on, again and again; `open` closes nothing. */
export interface StoreHarness {
  open(): Promise<Store>
  dispose(): Promise<void>
}

const put = (key: string, value: unknown, expected = 0): StoreOperation => ({
  op: 'put',
  kind: 'pool',
  key,
  value,
  expect: expected,
})
const remove = (key: string, expected: number): StoreOperation => ({ op: 'delete', kind: 'pool', key, expect: expected })
const event = (subject: string, type = 'test.happened'): EventDraft => ({
  actor: 'operator:test',
  type,
  subject,
  message: 'something happened',
  severity: 'info',
})

function versionOf(outcome: CommitOutcome): number {
  if (outcome.kind !== 'committed') throw new Error(`expected a commit, got ${outcome.kind}`)
  return outcome.versions[0] ?? -1
}

/** Registers the suite; call inside `describe`. */
export function storeContract(makeHarness: () => Promise<StoreHarness>): void {
  const withStore = async (
    use: (store: Store, epoch: number, reopen: () => Promise<{ store: Store; epoch: number }>) => Promise<void>,
  ) => {
    const harness = await makeHarness()
    let store = await harness.open()
    try {
      const { epoch } = await store.load()
      await use(store, epoch, async () => {
        await store.close()
        store = await harness.open()
        return { store, epoch: (await store.load()).epoch }
      })
    } finally {
      await store.close()
      await harness.dispose()
    }
  }

  it('gives back after reopening exactly what was committed, under a higher epoch', () =>
    withStore(async (store, epoch, reopen) => {
      const options = { epoch, events: [], atMs: 5 }
      const first = versionOf(await store.commit([put('a', { x: [1, 'ü', null] })], options))
      await store.commit([put('b', 1)], options)
      await store.commit([put('a', { x: 2 }, first)], options)
      const again = await reopen()
      expect(again.epoch).toBeGreaterThan(epoch)
      const { objects } = await again.store.load()
      expect(objects.map((object) => [object.kind, object.key, object.value]).sort()).toEqual([
        ['pool', 'a', { x: 2 }],
        ['pool', 'b', 1],
      ])
    }))

  it('refuses a write whose expected version is not the present one, and writes nothing of it', () =>
    withStore(async (store, epoch) => {
      const options = { epoch, events: [event('e')], atMs: 5 }
      const version = versionOf(await store.commit([put('a', 1)], options))
      expect(await store.commit([put('b', 1), put('a', 2, version + 7)], options)).toMatchObject({ kind: 'conflict' })
      expect(await store.commit([put('b', 1), put('a', 2)], options)).toMatchObject({ kind: 'conflict' })
      expect(await store.commit([remove('zzz', 3)], options)).toMatchObject({ kind: 'conflict' })
      expect(await store.events({})).toHaveLength(1)
      expect(await store.commit([put('b', 1), put('a', 2, version)], options)).toMatchObject({ kind: 'committed' })
    }))

  it('never gives one version twice, so that a deleted and remade object cannot be mistaken for the old one', () =>
    withStore(async (store, epoch, reopen) => {
      const options = { epoch, events: [], atMs: 5 }
      const first = versionOf(await store.commit([put('a', 1)], options))
      expect(await store.commit([remove('a', first)], options)).toMatchObject({ kind: 'committed', versions: [0] })
      const second = versionOf(await store.commit([put('a', 1)], options))
      expect(second).not.toBe(first)
      await store.commit([remove('a', second)], options)
      const again = await reopen()
      const third = versionOf(await again.store.commit([put('a', 1)], { ...options, epoch: again.epoch }))
      expect([first, second]).not.toContain(third)
    }))

  it('keeps an own outcome for each of many commits made at once', () =>
    withStore(async (store, epoch) => {
      const options = { epoch, events: [event('x')], atMs: 5 }
      const outcomes = await Promise.all([
        store.commit([put('a', 1)], options),
        store.commit([put('a', 2)], options),
        store.commit([put('b', 1)], options),
        store.commit([put('b', 2), put('c', 1)], options),
        store.commit([put('d', 1)], options),
      ])
      expect(outcomes.map((outcome) => outcome.kind)).toEqual(['committed', 'conflict', 'committed', 'conflict', 'committed'])
      const { objects } = await store.load()
      expect(objects.map((object) => object.key).sort()).toEqual(['a', 'b', 'd'])
      expect((await store.events({})).map((record) => record.seq)).toEqual([1, 2, 3])
    }))

  it('appends events with the change, in order and without gaps, and answers queries for them', () =>
    withStore(async (store, epoch, reopen) => {
      for (let index = 0; index < 5; index += 1)
        await store.commit([put(`p${index}`, index)], {
          epoch,
          events: [event(`node/${index}`), event(`app/${index}`, 'app.deployed')],
          atMs: 100 + index,
        })
      const again = await reopen()
      const seqs = async (query: Parameters<Store['events']>[0]) => (await again.store.events(query)).map((record) => record.seq)
      expect(await seqs({})).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      expect(await seqs({ limit: 3 })).toEqual([8, 9, 10])
      expect(await seqs({ afterSeq: 2, limit: 3 })).toEqual([3, 4, 5])
      expect(await seqs({ type: 'app.deployed' })).toEqual([2, 4, 6, 8, 10])
      expect(await seqs({ subjectPrefix: 'node/' })).toEqual([1, 3, 5, 7, 9])
      expect((await again.store.events({ limit: 1 }))[0]).toEqual({ ...event('app/4', 'app.deployed'), seq: 10, atMs: 104 })
      expect((await again.store.load()).lastEventSeq).toBe(10)
    }))

  it('refuses changes above the limits of one commit', () =>
    withStore(async (store, epoch) => {
      const options = { epoch, events: [], atMs: 5 }
      const many = Array.from({ length: MAX_COMMIT_OPERATIONS + 1 }, (_, index) => put(`k${index}`, 1))
      expect(await store.commit(many, options)).toMatchObject({ kind: 'tooLarge' })
      expect(await store.commit(many.slice(1), options)).toMatchObject({ kind: 'committed' })
      expect(await store.commit([put('big', 'x'.repeat(MAX_COMMIT_BYTES + 1))], options)).toMatchObject({ kind: 'tooLarge' })
      const told = Array.from({ length: 400 }, (_, index) => ({
        ...event(`app/${index}`, 'app.deployed'),
        message: 'x'.repeat(1_000),
      }))
      expect(await store.commit([put('small', 1)], { ...options, events: told })).toMatchObject({ kind: 'tooLarge' })
      expect(await store.commit([put('small', 1)], { ...options, events: told.slice(0, 250) })).toMatchObject({
        kind: 'committed',
      })
    }))

  it('refuses writes of an earlier epoch', () =>
    withStore(async (store, epoch, reopen) => {
      const again = await reopen()
      const outcome = await again.store.commit([put('a', 1)], { epoch, events: [], atMs: 5 })
      expect(outcome).toMatchObject({ kind: 'notLeader' })
      expect((await again.store.load()).objects).toEqual([])
      expect(store).toBeDefined()
    }))

  it('keeps its own copy: changing an object after the commit changes nothing stored', () =>
    withStore(async (store, epoch) => {
      const value = { list: [1] }
      await store.commit([put('a', value)], { epoch, events: [], atMs: 5 })
      value.list.push(2)
      expect((await store.load()).objects[0]?.value).toEqual({ list: [1] })
    }))
}
