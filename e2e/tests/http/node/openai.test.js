// The official `openai` client for Node against a running server. `test_node.py` starts both and counts each test.
// SERVER_URL generates text with the shipped model, EMBEDDINGS_URL embeds; both have the key API_KEY.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const OpenAI = require('openai');

const options = { apiKey: process.env.API_KEY, maxRetries: 0, timeout: 60_000 };
const client = new OpenAI({ ...options, baseURL: `${process.env.SERVER_URL}/v1` });
const embedder = new OpenAI({ ...options, baseURL: `${process.env.EMBEDDINGS_URL}/v1` });

const model = 'tiny';
const messages = [{ role: 'user', content: 'What is 7 plus 5?' }];
const greedy = { model, messages, temperature: 0 };
const weather = {
  type: 'function',
  function: {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: { unit: { type: 'string', enum: ['celsius', 'fahrenheit'] } },
      required: ['unit'],
      additionalProperties: false,
    },
  },
};

async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

test('models are listed and retrieved', async () => {
  const ids = (await all(client.models.list())).map((one) => one.id);
  assert.ok(ids.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
});

test('a chat answers', async () => {
  const answer = await client.chat.completions.create(greedy);
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.choices[0].message.role, 'assistant');
  assert.match(answer.choices[0].message.content, /^7 \+ 5 = 12/);
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test('a streamed chat is the same text', async () => {
  const whole = await client.chat.completions.create(greedy);
  const stream = await client.chat.completions.create({
    ...greedy,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await all(stream);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? '').join('');
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.deepEqual(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
});

test('the stream helper gathers the final message', async () => {
  const runner = client.chat.completions.stream(greedy);
  let text = '';
  runner.on('content', (delta) => (text += delta));
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.content, text);
  assert.equal(final.choices[0].finish_reason, 'stop');
});

test('a completion takes text, tokens and lists of them', async () => {
  const prompts = ['In the beginning', [67, 68, 69], ['And', 'Moses'], [[67], [68, 69]]];
  for (const prompt of prompts) {
    const answer = await client.completions.create({ model, prompt, max_tokens: 3, temperature: 0 });
    const n = Array.isArray(prompt) && typeof prompt[0] !== 'number' ? prompt.length : 1;
    assert.equal(answer.choices.length, n);
    assert.equal(answer.usage.completion_tokens, 3 * n);
  }
});

test('log-probabilities come with a chat', async () => {
  const answer = await client.chat.completions.create({ ...greedy, logprobs: true, top_logprobs: 2 });
  for (const token of answer.choices[0].logprobs.content) {
    assert.equal(token.top_logprobs.length, 2);
    assert.ok(token.logprob <= 0);
  }
});

test('a JSON schema is kept to', async () => {
  const schema = {
    type: 'object',
    properties: { sum: { type: 'integer' } },
    required: ['sum'],
    additionalProperties: false,
  };
  const answer = await client.chat.completions.create({
    ...greedy,
    response_format: { type: 'json_schema', json_schema: { name: 'sum', strict: true, schema } },
  });
  const value = JSON.parse(answer.choices[0].message.content);
  assert.deepEqual(Object.keys(value), ['sum']);
  assert.ok(Number.isInteger(value.sum));
});

test('a required tool is called', async () => {
  const answer = await client.chat.completions.create({
    ...greedy,
    tools: [weather],
    tool_choice: 'required',
    parallel_tool_calls: false,
  });
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.type, 'function');
  assert.equal(call.function.name, 'get_weather');
  assert.ok(['celsius', 'fahrenheit'].includes(JSON.parse(call.function.arguments).unit));
  assert.equal(answer.choices[0].finish_reason, 'tool_calls');
});

test('a streamed tool call has the same arguments', async () => {
  const request = { ...greedy, tools: [weather], tool_choice: 'required', parallel_tool_calls: false };
  const whole = await client.chat.completions.create(request);
  const final = await client.chat.completions.stream(request).finalChatCompletion();
  const name_and_arguments = (answer) => answer.choices[0].message.tool_calls.map((call) => call.function);
  const plain = (answer) => name_and_arguments(answer).map(({ name, arguments: text }) => [name, JSON.parse(text)]);
  assert.deepEqual(plain(final), plain(whole));
});

test('the Responses API answers and streams', async () => {
  const request = { model, input: 'What is 7 plus 5?', temperature: 0 };
  const whole = await client.responses.create(request);
  assert.equal(whole.status, 'completed');
  assert.match(whole.output_text, /^7 \+ 5 = 12/);
  const events = await all(await client.responses.create({ ...request, stream: true }));
  assert.equal(events[0].type, 'response.created');
  assert.equal(events.at(-1).type, 'response.completed');
  const deltas = events.filter((event) => event.type === 'response.output_text.delta');
  assert.equal(deltas.map((event) => event.delta).join(''), whole.output_text);
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, index) => index),
  );
});

test('embeddings are the same as numbers and as base64', async () => {
  const request = { model: 'embedder', input: ['one text', 'another'] };
  const numbers = await embedder.embeddings.create({ ...request, encoding_format: 'float' });
  // Without a format the client asks for base64 and decodes it.
  const decoded = await embedder.embeddings.create(request);
  assert.equal(numbers.data.length, 2);
  for (const [i, { embedding, index }] of numbers.data.entries()) {
    assert.equal(index, i);
    assert.deepEqual(Array.from(Float32Array.from(embedding)), Array.from(decoded.data[i].embedding));
  }
});

test('a wrong key is an authentication error', async () => {
  const stranger = new OpenAI({ ...options, apiKey: 'wrong', baseURL: client.baseURL });
  await assert.rejects(all(stranger.models.list()), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, 'invalid_api_key');
    return true;
  });
});

test('an unknown model is a not-found error', async () => {
  await assert.rejects(client.chat.completions.create({ ...greedy, model: 'gpt-5' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    return true;
  });
});

test('a bad parameter is a bad-request error that names it', async () => {
  await assert.rejects(client.chat.completions.create({ ...greedy, temperature: 9 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, 'temperature');
    assert.ok(error.requestID);
    return true;
  });
});

test('an aborted stream ends, and the server goes on', async () => {
  const stream = await client.completions.create({
    model,
    prompt: 'And Moses said',
    max_tokens: 1500,
    ignore_eos: true,
    stream: true,
  });
  for await (const chunk of stream) {
    assert.ok(chunk.choices.length > 0);
    stream.controller.abort();
    break;
  }
  assert.ok((await client.chat.completions.create(greedy)).choices[0].message.content);
});
