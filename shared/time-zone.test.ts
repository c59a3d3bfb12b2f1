import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { nextMatch } from './calendar.ts'
import { createZoneClock, isTimeZone, zoneOfAbbreviation } from './time-zone.ts'

/** Names that parts of the platform other than Temporal take, or took. */
const OLD_NAMES =
  'ACT AET AGT ART AST BET BST CAT CNT CST CTT EAT ECT EST HST IET IST JST MIT MST NET NST PLT PNT PRT PST SST VST US/Pacific-New SystemV/EST5 SystemV/PST8PDT Canada/East-Saskatchewan Etc/Unknown Factory posix/UTC right/UTC localtime GMT+0 Zulu UCT europe/berlin Mideast/Riyadh87'.split(
    ' ',
  )

describe('time zones', () => {
  it('are names of the IANA database', () => {
    expect(['UTC', 'Europe/Berlin', 'Asia/Kolkata', 'EST5EDT'].every(isTimeZone)).toBe(true)
    expect(['', '+02:00', 'Berlin', 'Europe/Nowhere', 'PST', 'IST', 'SystemV/EST5'].some(isTimeZone)).toBe(false)
  })

  it('every name that is taken can be reckoned with', () => {
    const names = fc.oneof(
      fc.constantFrom(...OLD_NAMES, ...OLD_NAMES.map((name) => name.toLowerCase()), ...Intl.supportedValuesOf('timeZone')),
      fc.string({ maxLength: 12 }),
      fc.string({ unit: fc.constantFrom(...'ACEGMPSTUc/+-015'), maxLength: 8 }),
    )
    fc.assert(
      fc.property(names, (name) => {
        if (isTimeZone(name)) expect(nextMatch('0 0 * * *', name, 0)).toBeGreaterThan(0)
        else expect(() => createZoneClock(name)).toThrow(/no time zone/)
      }),
      { numRuns: 1_000 },
    )
  })

  it('an abbreviation has a zone that is meant, and that zone is known', () => {
    expect(zoneOfAbbreviation('PST')).toBe('America/Los_Angeles')
    expect(zoneOfAbbreviation('constructor')).toBeNull()
    for (const name of OLD_NAMES) {
      const meant = zoneOfAbbreviation(name)
      if (meant !== null) expect(isTimeZone(meant)).toBe(true)
    }
  })

  it('a clock tells the local day on either side of a change', () => {
    const clock = createZoneClock('Pacific/Apia')
    const day = (text: string) => Date.parse(text) / 86_400_000
    expect(clock.dayOf(Date.parse('2011-12-30T09:59:59Z'))).toBe(day('2011-12-29'))
    expect(clock.dayOf(Date.parse('2011-12-30T10:00:00Z'))).toBe(day('2011-12-31'))
  })
})
