/** Calendar months in UTC by arithmetic alone, for plans, which read no clock. Pure. */

const DAY_MS = 86_400_000

/** First instant of the UTC month that holds `atMs`, and of the next one. */
export function monthOf(atMs: number): { readonly startMs: number; readonly endMs: number } {
  const { year, month } = civilMonth(Math.floor(atMs / DAY_MS))
  const next = month === 12 ? { year: year + 1, month: 1 } : { year, month: month + 1 }
  return { startMs: daysFromCivil(year, month) * DAY_MS, endMs: daysFromCivil(next.year, next.month) * DAY_MS }
}

/** Days since 1970-01-01 of the first of a month (proleptic Gregorian; years counted from March). */
function daysFromCivil(year: number, month: number): number {
  const y = month <= 2 ? year - 1 : year
  const era = Math.floor(y / 400)
  const yearOfEra = y - era * 400
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5)
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear
  return era * 146_097 + dayOfEra - 719_468
}

function civilMonth(days: number): { year: number; month: number } {
  const shifted = days + 719_468
  const era = Math.floor(shifted / 146_097)
  const dayOfEra = shifted - era * 146_097
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365,
  )
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const shiftedMonth = Math.floor((5 * dayOfYear + 2) / 153)
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
  return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month }
}
