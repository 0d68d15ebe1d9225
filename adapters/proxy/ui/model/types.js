// Types of what the page of a model reads, for the type checker.

/**
 * @typedef {object} Hook
 * @property {string} point
 * @property {string} action
 * @property {string} outcome
 * @property {string} detail
 * @property {number} seconds
 * @property {string} output
 */

/**
 * @typedef {object} Transition
 * @property {number} id
 * @property {number} at
 * @property {string} event
 * @property {string} cause
 * @property {string} source
 * @property {string} target
 * @property {number} seconds
 * @property {Hook[]} hooks
 */

/**
 * @typedef {object} Start One start of the model and the run that followed, as /api/models/ID/starts returns it.
 * @property {string} id
 * @property {number} number
 * @property {number} at
 * @property {string} outcome
 * @property {string} swap_id
 * @property {string} swap_cause
 * @property {string} request_id
 * @property {string} cause
 * @property {boolean} is_adopted
 * @property {number | null} ready_s
 * @property {number | null} until
 * @property {string} why
 * @property {Transition[]} transitions The oldest first.
 * @property {number} left_out
 * @property {number | null} log_bytes
 * @property {number | null} kept_log_bytes
 */

/**
 * @typedef {object} SavedConversation
 * @property {string} id
 * @property {string} kind "library" or "slot".
 * @property {number} tokens
 * @property {number} bytes
 * @property {number} saved_at
 * @property {number | null} used_at
 * @property {number | null} restores
 * @property {number | null} saved_s
 * @property {string} [words]
 */

/**
 * @typedef {object} SavedCache What is kept of the model's prompt cache, as /api/models/ID/kv returns it.
 * @property {string} mode "off", "keep" or "engine".
 * @property {any} facts Sizes, times and counts; null if nothing is kept.
 * @property {string | null} directory
 * @property {string | null} memory_directory
 * @property {{checkpoint: boolean, min_tokens: number, max_bytes: number | null, max_age_s: number | null, library_bytes: number | null, write_budget: number} | null} limits
 * @property {number} bytes
 * @property {number} tokens
 * @property {number} total
 * @property {SavedConversation[]} conversations
 */

export {};
