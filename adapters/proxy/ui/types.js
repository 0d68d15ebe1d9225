// Types of the API's bodies, for the type checker; the proxy's /openapi.json has all of them.

/**
 * @typedef {object} ModelStatus
 * @property {string} id
 * @property {string} name
 * @property {string} description
 * @property {string} state
 * @property {boolean} unlisted
 * @property {string} peerID
 * @property {string[]} [aliases]
 * @property {string[]} [configuration]
 * @property {Record<string, boolean>} [capabilities]
 * @property {string} [cause]
 * @property {number} [failures]
 * @property {number | null} [pid]
 * @property {string} [node]
 * @property {number} [incarnation]
 * @property {boolean} [pinned]
 * @property {boolean} [kept]
 * @property {number} [load_s]
 */

/**
 * @typedef {object} Flight
 * @property {string} id
 * @property {string} timestamp
 * @property {string} model
 * @property {string} req_path
 * @property {string} method
 * @property {string} remote_ip
 * @property {number} resp_status
 * @property {number} resp_bytes
 * @property {number} elapsed_ms
 * @property {boolean} is_waiting
 * @property {string} request_id
 * @property {Record<string, any>} [metadata]
 * @property {"queue" | "evict" | "start" | "first" | "response"} [phase]
 * @property {number} [wait_ms]
 * @property {number} [first_byte_ms]
 * @property {string} [swap_id]
 * @property {{queue_ms: number, evict_ms: number, start_ms: number, hooks_ms: number, resident: string[], evicted: string[], reasons: {after_ms: number, why: string}[]}} [wait]
 * @property {number} began Arrival, on the clock of `performance.now()`.
 * @property {number} [ended] End, on the same clock.
 */

export {};
