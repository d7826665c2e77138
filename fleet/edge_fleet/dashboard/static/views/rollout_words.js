// What the service calls gates, phases and policies, in words.
export const GATES = {
  installed: "Installed", failures: "Refused on devices", silent: "Silent devices", errors: "Errors", drift: "Drift",
  quality: "Labelled quality", latency: "Latency", memory: "Memory", scores: "Scores", estimate: "Estimated quality",
  agreement: "Shadow: same answers", shadow_failures: "Shadow: failures", shadow_scores: "Shadow: scores", shadow_latency: "Shadow: latency",
};

/** The tone of its badge, and its word. */
export const PHASES = {
  running: ["info", "running"], paused: ["warn", "paused"], waiting: ["warn", "waits for a person"],
  halted: ["bad", "halted"], aborted: ["off", "aborted"], "rolling-back": ["warn", "rolling back"],
  "rolled-back": ["off", "rolled back"], finished: ["good", "finished"], queued: ["off", "waits its turn"],
  released: ["good", "back on the channel"],
};

export const POLICIES = { halt: "halt: ask no more, call back what is under way", rollback: "take the wave back", "rollback-all": "take all of it back", wait: "wait for a person" };
