// Driver of the AI SDK; the third argument chooses the provider.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

import { RESULT, run, TOOL } from "./driver.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const isAnthropic = process.argv.splice(4, 1)[0] === "anthropic";

await run((base, key) => {
  const place = { baseURL: `${base}/v1`, apiKey: key };
  const provider = isAnthropic
    ? createAnthropic(place)
    : createOpenAICompatible({ name: "swapchart", ...place });
  return {
    async chat(model, prompt) {
      return { text: (await generateText({ model: provider(model), prompt })).text };
    },
    async stream(model, prompt) {
      let failure;
      const onError = ({ error }) => (failure = error);
      const pieces = [];
      for await (const piece of streamText({ model: provider(model), prompt, onError }).textStream) {
        pieces.push(piece);
      }
      if (failure) throw failure;
      return { pieces };
    },
    async tools(model, prompt) {
      let given;
      const execute = (value) => ((given = value), RESULT);
      const tools = { pick: tool({ inputSchema: jsonSchema(TOOL), execute }) };
      const stopWhen = stepCountIs(3);
      const { text } = await generateText({ model: provider(model), prompt, tools, stopWhen });
      return { arguments: given, text };
    },
    async embeddings(model, value) {
      const { embedding } = await embed({ model: provider.embeddingModel(model), value });
      return { size: embedding.length };
    },
  };
});
