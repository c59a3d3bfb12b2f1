import { createBuiltinGateway } from '../../agent/gateway/builtin/builtin-gateway.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { seededRandom } from '../../shared/random.ts'
import { gatewayContract } from './gateway-contract.ts'

gatewayContract('builtin', (options) =>
  createBuiltinGateway({
    nodeId: options.nodeId,
    address: '127.0.0.1',
    portRange: { from: 26_000, to: 26_999 },
    keys: options.keys,
    staleAfterMs: () => options.staleAfterMs,
    callerOf: (address) => options.callers.get(address) ?? null,
    meshSlice: options.meshSlice,
    onProblem: (problem) => options.problems.push(problem),
    limits: { responseTimeoutMs: options.responseTimeoutMs },
    clock: systemClock(),
    random: seededRandom(1),
    logger: silentLogger(),
  }),
)
