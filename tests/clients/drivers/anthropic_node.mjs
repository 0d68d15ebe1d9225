// Driver of Anthropic's library for Node.
import Anthropic from "@anthropic-ai/sdk";

import { messages, RESULT, run, TOOL } from "./driver.mjs";

await run((base, key) => {
  const client = new Anthropic({ baseURL: base, apiKey: key });
  const create = (body) => client.messages.create({ max_tokens: 50, ...body });
  return {
    async chat(model, text) {
      return { text: (await create({ model, messages: messages(text) })).content[0].text };
    },
    async stream(model, text) {
      const pieces = [];
      const stream = client.messages.stream({ model, messages: messages(text), max_tokens: 50 });
      stream.on("text", (piece) => pieces.push(piece));
      await stream.finalMessage();
      return { pieces };
    },
    async tools(model, text) {
      const tools = [{ name: "pick", input_schema: TOOL }];
      const asked = messages(text);
      const { content } = await create({ model, messages: asked, tools });
      const result = { type: "tool_result", tool_use_id: content[0].id, content: RESULT };
      const turns = [{ role: "assistant", content }, { role: "user", content: [result] }];
      const last = await create({ model, messages: [...asked, ...turns], tools });
      return { arguments: content[0].input, text: last.content[0].text };
    },
    async listed() {
      const models = [];
      for await (const each of client.models.list()) models.push(each.id);
      return { models };
    },
  };
});
