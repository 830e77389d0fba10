// OpenAI's own client.

// docs
import OpenAI from "openai";
// end

export const lacks = {};

export async function embed(given) {
  // docs
  const client = new OpenAI({ baseURL: given.base_url, apiKey: given.api_key });
  // end
  const answer = await client.embeddings.create({ model: given.model, input: given.input, ...given.options });
  return answer.data.map((item) => item.embedding);
}
