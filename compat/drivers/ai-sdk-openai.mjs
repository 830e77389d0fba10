// Vercel's AI SDK with its provider for OpenAI.

// docs
import { createOpenAI } from "@ai-sdk/openai";
// end
import { embed as embedOne, embedMany } from "ai";

const textsOnly = "It sends texts only.";
const floatsOnly = "It always asks for `float`.";

export const lacks = {
  base64: floatsOnly,
  float: floatsOnly,
  "token ids": textsOnly,
  "split ids": textsOnly,
  "split ids, hosted": textsOnly,
};

export async function embed(given) {
  // docs
  const embedway = createOpenAI({ baseURL: given.base_url, apiKey: given.api_key });
  const model = embedway.embeddingModel(given.model);
  // end
  const providerOptions = { openai: given.options };
  if (given.single) return [(await embedOne({ model, value: given.texts[0], providerOptions })).embedding];
  return (await embedMany({ model, values: given.texts, providerOptions })).embeddings;
}
