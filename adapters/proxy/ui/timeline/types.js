// Types of the timeline; see /openapi.json.

/**
 * @typedef {{from: number, to: number}} Span Milliseconds since 1970.
 * @typedef {{at: number, until: number, state: string}} LaneInterval
 * @typedef {{model: string, states: LaneInterval[], answering: LaneInterval[]}} Lane
 * @typedef {{id: string, at: number, until: number, cause: string, request_id: string, started: string[], stopped: string[], failed: boolean}} Swap
 * @typedef {{id: number, model: string, at: number, status: number, requests: number, rejected: number, failed: number, canceled: number, queue_ms: number, evict_ms: number, start_ms: number, hooks_ms: number, first_byte_ms: number, duration_ms: number, swap_id: string, key?: string, wait?: any, state?: string, admitted?: number}} WaitingRequest `key` and what follows belong to one under way.
 * @typedef {{device: string, capacity: number, points: [number, number][]}} DeviceMemory
 * @typedef {{at: number, model: string, tokens: number, restore_ms: number, saved_ms: number | null, swap_id: string}} Restored
 */

/**
 * @typedef {object} Timeline
 * @property {number} start
 * @property {number} end
 * @property {Lane[]} lanes
 * @property {Swap[]} swaps
 * @property {WaitingRequest[]} requests
 * @property {number} total_requests
 * @property {number} total_waited_ms
 * @property {DeviceMemory[]} memory
 * @property {Restored[]} restored
 * @property {number} restored_tokens
 * @property {number} saved_ms
 */

export {};
