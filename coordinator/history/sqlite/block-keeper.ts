/**
 * What is done to the blocks of the file: merging new steps into them, folding finished blocks into the next coarser level, deleting
 * what is too old or too much. Each call is one short transaction, so that the coordinator's other work runs in between.
 *
 * `marks[level]` is the last block that was folded into the next level. Later blocks exist at the finer level only, and a query for
 * the coarser one folds them on the fly; steps that arrive for earlier ones are merged into both levels at once. Mark and blocks
 * change in the same transaction: no step is counted twice, and none is forgotten, wherever the process ends.
 */
import { Block, pack, unpack } from '../block.ts'
import { FUTURE_MS, LEVELS, oldestKeptMs } from '../levels.ts'
import { blockId, type HistoryFile, numberOfBlock, seriesOfBlock } from './history-file.ts'

/** Part of a step of the finest level. */
export interface Part {
  readonly step: number
  readonly sum: number
  readonly count: number
  readonly max: number
}

const FOLD_AT_ONCE = 200
const DELETE_AT_ONCE = 1000
/** How long after its end a block counts as finished. Later steps are merged too, only at more cost. */
const SETTLE_MS = 30_000

type LevelIndex = 0 | 1 | 2

export interface BlockKeeper {
  /** Merges parts of one series, inside the caller's transaction; returns how many were too old or too far ahead. */
  merge(series: number, parts: readonly Part[], nowMs: number): number
  /** Folds some finished blocks; false when none is left. */
  fold(nowMs: number): boolean
  /** Deletes some blocks that are too old; false when none is left. */
  expire(nowMs: number): boolean
  /** Deletes some of the oldest blocks of the finest level that has any, down to the one being written; false when there is none. */
  relieve(nowMs: number): boolean
  /** Deletes all blocks of a series. */
  forget(series: number): void
  /** Adds all that is kept of a series to `into`, whose step 0 is step `firstStep` of the level. */
  collect(series: number, level: LevelIndex, firstStep: number, into: Block): void
}

export function createBlockKeeper(file: HistoryFile): BlockKeeper {
  const marks: [number, number] = [file.mark('folded-0'), file.mark('folded-1')]
  const scratch = LEVELS.map((level) => new Block(level.stepsPerBlock))

  const update = (level: LevelIndex, id: number, change: (block: Block) => void) => {
    const block = scratch[level] ?? new Block(LEVELS[level].stepsPerBlock)
    block.clear()
    const packed = file.block(id)
    if (packed !== null) unpackOrClear(packed, block)
    change(block)
    file.putBlock(id, pack(block))
  }

  const foldLevel = (level: 0 | 1, nowMs: number): boolean => {
    const { blockMs, stepMs } = LEVELS[level]
    const coarse = (level + 1) as 1 | 2
    const target = LEVELS[coarse]
    const before = blockId(level, Math.max(0, Math.floor((nowMs - SETTLE_MS) / blockMs)), 0)
    const finished = file.blocksBetween(Math.max(marks[level], blockId(level, 0, 0) - 1), before, FOLD_AT_ONCE)
    // With all of them folded the mark stands at the end of finished time: what comes for it later is merged into both levels. It never
    // falls behind the next level's mark, because that level is folded only when nothing is left here.
    const isLastTurn = finished.length < FOLD_AT_ONCE
    const mark = Math.max(marks[level], isLastTurn ? before - 1 : (finished.at(-1)?.id ?? -1))
    if (mark === marks[level]) return false
    file.atomically(() => {
      for (const { id, packed } of finished) {
        const series = seriesOfBlock(id)
        const startMs = numberOfBlock(id) * blockMs
        const number = Math.floor(startMs / target.blockMs)
        update(coarse, blockId(coarse, number, series), (block) => {
          try {
            unpack(packed, block, (startMs - number * target.blockMs) / target.stepMs, target.stepMs / stepMs)
          } catch (error) {
            if (!(error instanceof RangeError)) throw error
          }
        })
        if (coarse === 2) file.touchSeries(series, startMs + blockMs)
      }
      file.setMark(`folded-${level}`, mark)
    })
    marks[level] = mark
    return !isLastTurn
  }

  /** Blocks of these levels may go only when the next level has them. */
  const mayGoBefore = (level: LevelIndex, wanted: number) => (level === 2 ? wanted : Math.min(wanted, marks[level] + 1))

  return {
    merge(series, parts, nowMs) {
      let refused = 0
      const byBlock = new Map<number, Part[]>()
      for (const part of parts) {
        const atMs = part.step * LEVELS[0].stepMs
        if (atMs < oldestKeptMs(LEVELS[2], nowMs) || atMs > nowMs + FUTURE_MS) {
          refused += part.count
          continue
        }
        const number = Math.floor(part.step / LEVELS[0].stepsPerBlock)
        const list = byBlock.get(number)
        if (list === undefined) byBlock.set(number, [part])
        else list.push(part)
      }
      for (const [fineNumber, list] of byBlock) {
        const startMs = fineNumber * LEVELS[0].blockMs
        for (const level of [0, 1, 2] as const) {
          const { blockMs, stepMs } = LEVELS[level]
          const number = Math.floor(startMs / blockMs)
          const id = blockId(level, number, series)
          const isTooOld = number * blockMs < oldestKeptMs(LEVELS[level], nowMs)
          if (!isTooOld)
            update(level, id, (block) => {
              for (const { step, sum, count, max } of list) {
                const stepHere = Math.floor((step * LEVELS[0].stepMs) / stepMs) - number * LEVELS[level].stepsPerBlock
                block.add(stepHere, sum, count, max)
              }
            })
          // Not folded yet: the coarser level gets it with its block.
          if (level < 2 && !isTooOld && id > (marks[level as 0 | 1] ?? 0)) break
        }
      }
      return refused
    },

    fold: (nowMs) => foldLevel(0, nowMs) || foldLevel(1, nowMs),

    expire(nowMs) {
      for (const level of [0, 1, 2] as const) {
        const oldest = Math.max(0, oldestKeptMs(LEVELS[level], nowMs) / LEVELS[level].blockMs)
        const before = mayGoBefore(level, blockId(level, oldest, 0))
        const from = blockId(level, 0, 0)
        if (before > from && file.deleteBlocks(from, before, DELETE_AT_ONCE) > 0) return true
      }
      return false
    },

    relieve(nowMs) {
      for (const level of [0, 1, 2] as const) {
        const span = file.span(level)
        if (span === null) continue
        const present = Math.floor(nowMs / LEVELS[level].blockMs)
        const before = mayGoBefore(level, blockId(level, present, 0))
        if (before > span.first && file.deleteBlocks(span.first, before, DELETE_AT_ONCE) > 0) return true
      }
      return false
    },

    forget(series) {
      for (const level of [0, 1, 2] as const) {
        const span = file.span(level)
        if (span === null) continue
        for (let number = numberOfBlock(span.first); number <= numberOfBlock(span.last); number += 1)
          file.deleteBlocks(blockId(level, number, series), blockId(level, number, series) + 1, 1)
      }
    },

    collect(series, level, firstStep, into) {
      const { stepMs } = LEVELS[level]
      const fromMs = firstStep * stepMs
      const toMs = fromMs + into.size * stepMs
      for (let fine = level; fine >= 0; fine -= 1) {
        const source = LEVELS[fine as LevelIndex]
        const span = file.span(fine)
        if (span === null) continue
        const mark = fine === level ? -1 : (marks[fine as 0 | 1] ?? -1)
        let number = Math.max(Math.floor(fromMs / source.blockMs), numberOfBlock(span.first))
        if (mark >= blockId(fine, 0, 0)) number = Math.max(number, numberOfBlock(mark))
        const end = Math.min(Math.ceil(toMs / source.blockMs), numberOfBlock(span.last) + 1)
        for (; number < end; number += 1) {
          const id = blockId(fine, number, series)
          const packed = id > mark ? file.block(id) : null
          if (packed === null) continue
          const offset = Math.floor((number * source.blockMs) / stepMs) - firstStep
          try {
            unpack(packed, into, offset, stepMs / source.stepMs)
          } catch (error) {
            if (!(error instanceof RangeError)) throw error
          }
        }
      }
    },
  }
}

/** A damaged block counts as empty: the rest of the history is still good. */
function unpackOrClear(packed: Uint8Array, block: Block): void {
  try {
    unpack(packed, block)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    block.clear()
  }
}
