// LangChain's class.

// docs
import { OpenAIEmbeddings } from "@langchain/openai";

// end

const textsOnly = "It sends texts only.";

export const lacks = {
  "token ids": textsOnly,
  "split ids": textsOnly,
  "split ids, hosted": textsOnly,
};

function connect(given) {
  const { encoding_format: encodingFormat, dimensions } = given.options;
  const options = { encodingFormat, dimensions };
  // docs
  const embeddings = new OpenAIEmbeddings({
    model: given.model,
    apiKey: given.api_key,
    configuration: { baseURL: given.base_url },
    ...options,
  });
  // end
  return embeddings;
}

export async function embed(given) {
  const embeddings = connect(given);
  return given.single ? [await embeddings.embedQuery(given.texts[0])] : embeddings.embedDocuments(given.texts);
}

export default async function (given) {
  const embeddings = new OpenAIEmbeddings({
    apiKey: given.api_key,
    configuration: { baseURL: given.base_url },
  });
  return embeddings.embedDocuments(given.texts);
}
