import { fakeProvider } from '../fakes/fake-provider.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'
import { describeProviderContract } from './provider-contract.ts'

describeProviderContract('fake', async () => {
  const clock = virtualClock()
  return {
    provider: fakeProvider({ clock }),
    request: (name, tags) => ({
      name,
      tags,
      pool: 'small',
      offering: 'small',
      image: 'debian',
      zone: null,
      userData: '#!/bin/sh\n',
      settings: {},
    }),
    async settle(promise) {
      let done = false
      const watched = promise.finally(() => {
        done = true
      })
      watched.catch(() => {}) // judged by the caller, who awaits the same promise below
      await clock.until(() => done, 'the call is settled')
      return watched
    },
    pause: (ms) => clock.advance(ms),
    cleanup: async () => {},
  }
})
