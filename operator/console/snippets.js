// The request of the playground as code. Pure.

/** curl, Python and Node for a chat request. */
export function snippets(url, body, needsKey) {
  const json = JSON.stringify(body, null, 2);
  const key = needsKey ? "YOUR-KEY" : "none";
  const header = needsKey ? ` \\\n  -H 'authorization: Bearer ${key}'` : "";
  const { model, messages, ...rest } = body;
  const more = Object.entries(rest).map(([name, value]) => `    ${name}=${python(value)},\n`).join("");
  return {
    curl: `curl -N ${url}/chat/completions \\\n  -H 'content-type: application/json'${header} \\\n  -d '${json.replaceAll("'", "'\\''")}'\n`,
    Python: `from openai import OpenAI\n\nclient = OpenAI(base_url="${url}", api_key="${key}")\n` +
      `answer = client.chat.completions.create(\n    model=${python(model)},\n    messages=${python(messages)},\n${more})\n` +
      (body.stream ? `for chunk in answer:\n    for choice in chunk.choices:\n        print(choice.delta.content or "", end="", flush=True)\n` : `print(answer.choices[0].message.content)\n`),
    Node: `import OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: "${url}", apiKey: "${key}" });\n` +
      `const answer = await client.chat.completions.create(${json});\n` +
      (body.stream ? `for await (const chunk of answer) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n` : `console.log(answer.choices[0].message.content);\n`),
  };
}

function python(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, of]) => `${JSON.stringify(key)}: ${python(of)}`).join(", ")}}`;
  return JSON.stringify(value);
}
