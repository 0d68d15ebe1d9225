// Driver of OpenAI's library for Node.
import OpenAI from "openai";

import { messages, RESULT, run, TOOL } from "./driver.mjs";

await run((base, key) => {
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key });
  const create = (body) => client.chat.completions.create(body);
  return {
    async chat(model, text) {
      const answer = await create({ model, messages: messages(text) });
      return { text: answer.choices[0].message.content };
    },
    async stream(model, text) {
      const pieces = [];
      for await (const chunk of await create({ model, messages: messages(text), stream: true })) {
        pieces.push(chunk.choices[0]?.delta.content);
      }
      return { pieces: pieces.filter(Boolean) };
    },
    async tools(model, text) {
      const tools = [{ type: "function", function: { name: "pick", parameters: TOOL } }];
      const asked = messages(text);
      const { message } = (await create({ model, messages: asked, tools })).choices[0];
      const [call] = message.tool_calls;
      const result = { role: "tool", tool_call_id: call.id, content: RESULT };
      const last = await create({ model, messages: [...asked, message, result], tools });
      const text_ = last.choices[0].message.content;
      return { arguments: JSON.parse(call.function.arguments), text: text_ };
    },
    async embeddings(model, text) {
      const answer = await client.embeddings.create({ model, input: text });
      return { size: answer.data[0].embedding.length };
    },
    async listed() {
      const models = [];
      for await (const each of client.models.list()) models.push(each.id);
      return { models };
    },
    async responses(model, text) {
      return { text: (await client.responses.create({ model, input: text })).output_text };
    },
  };
});
