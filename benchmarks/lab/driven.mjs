// Many driven orders in XState: node driven.mjs MACHINE.json INSTANCES; see driven.py.
// Run in a folder with xstate in node_modules.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.cwd() + "/"));
const { createActor, createMachine, enqueueActions, fromPromise } = require("xstate");

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const count = Number(process.argv[3]);
const known = new Map();
const evaluated = (text, context, event) => {
  if (!known.has(text)) known.set(text, new Function("context", "event", `return ${text};`));
  return known.get(text)(context, event);
};
const guard = ({ context, event }, params) => evaluated(params.expression, context, event);
const action = enqueueActions(({ context, event, enqueue }, params) => {
  const assigned = Object.entries(params?.assign ?? {});
  if (assigned.length) {
    enqueue.assign(Object.fromEntries(
      assigned.map(([name, text]) => [name, evaluated(text, context, event)])));
  }
  for (const effect of params?.effects ?? []) {
    if (effect.effect === "timer.start") {
      enqueue.raise({ type: effect.event }, { delay: effect.delay, id: effect.timer });
    } else if (effect.effect === "timer.cancel") {
      enqueue.cancel(effect.timer);
    }
  }
});
const names = (key) => new Proxy({}, { get: (_, name) => key, has: () => true });
const machine = createMachine(config, {
  guards: names(guard),
  actions: names(action),
  actors: names(fromPromise(() => new Promise(() => {}))),
});
const events = [{ type: "submit", value: 5000 }, { type: "hold" }, { type: "resume" }];
createActor(machine).start();
globalThis.gc?.();
const before = process.memoryUsage.rss();
const cpu = () => { const used = process.cpuUsage(); return used.user + used.system; };
let began = cpu();
const orders = [];
for (let n = 0; n < count; n += 1) orders.push(createActor(machine).start());
const made = cpu() - began;
began = cpu();
for (const event of events) for (const order of orders) order.send(event);
const stepped = cpu() - began;
const value = JSON.stringify(orders.at(-1).getSnapshot().value);
if (value !== '{"open":"waiting"}') throw new Error(`the orders are in ${value}`);
console.log(JSON.stringify({
  make_us: made / count, event_us: stepped / count / events.length,
  bytes_each: (process.memoryUsage.rss() - before) / count,
}));
process.exit(0);
