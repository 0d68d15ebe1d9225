// Main loop of a driver: JSON orders on standard input, JSON results on standard output, by lines.
import readline from "node:readline";

export const TOOL = {
  type: "object",
  properties: { color: { type: "string" } },
  required: ["color"],
};
export const RESULT = "a red one";
export const messages = (text) => [{ role: "user", content: text }];

// Carry out orders until the input ends; make returns what a client can do, for a base URL and a key.
export async function run(make) {
  const [base, key] = process.argv.slice(2);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    let result;
    try {
      result = await make(base, order.key ?? key)[order.do](order.model ?? "", order.text ?? "");
    } catch (error) {
      const last = error.lastError ?? error; // of ai-sdk, after its retries
      const message = [error.message, last.message, last.responseBody].filter(Boolean).join(" | ");
      result = { error: { status: last.status ?? last.statusCode ?? null, message } };
    }
    console.log(JSON.stringify(result));
  }
}
