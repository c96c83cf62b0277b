// Streams and events. A stream is a queue that runs only when the host waits or asks, so work is as late as the rules allow.
#include <algorithm>

#include "state.h"

namespace standin {
namespace {

bool can_run(CUstream stream) {
  if (stream->queue.empty()) return false;
  const Operation& next = stream->queue.front();
  return !next.awaited || next.awaited->done >= next.awaited_position;
}

void run_next(CUstream stream) {
  Operation operation = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (stream->context->sticky == CUDA_SUCCESS) execute(stream, operation);
  stream->done++;
}

// The stream that runs next while the host waits for `target`. Seed 0: only what is needed; 1: all others first; else random.
CUstream choose(CUstream target, const std::vector<CUstream>& ready) {
  int64_t seed = device_of(target->context).settings.seed;
  if (seed > 1) return ready[schedule_rng() % ready.size()];
  if (seed == 1) {
    for (CUstream stream : ready) {
      if (stream != target) return stream;
    }
    return target;
  }
  CUstream needed = target;
  for (size_t i = 0; i <= streams.size() && !can_run(needed); i++) {
    if (needed->queue.empty() || !needed->queue.front().awaited) break;
    needed = needed->queue.front().awaited;
  }
  return can_run(needed) ? needed : ready[0];
}

}  // namespace

CUstream make_stream(CUcontext context) {
  streams.push_back(new CUstream_st{context, {}});
  return streams.back();
}

CUstream stream_or_null(CUstream stream) {
  bool is_null = reinterpret_cast<uintptr_t>(stream) <= 2;   // CU_STREAM_LEGACY is 1, CU_STREAM_PER_THREAD 2
  return is_null ? current_context->null_stream : stream;
}

CUresult enqueue(CUstream stream, Operation operation) {
  if (stream->capture) {
    stream->capture->operations.push_back(std::move(operation));
    return CUDA_SUCCESS;
  }
  if (operation.when_enqueued) operation.when_enqueued();
  stream->queue.push_back(std::move(operation));
  stream->enqueued++;
  return CUDA_SUCCESS;
}

CUresult drain(CUstream target, uint64_t position) {
  while (target->done < position) {
    std::vector<CUstream> ready;
    for (CUstream stream : streams) {
      if (stream->context == target->context && can_run(stream)) ready.push_back(stream);
    }
    if (ready.empty()) {
      report(&device_of(target->context), "a stream waits for work that nothing has enqueued");
      return target->context->sticky = CUDA_ERROR_LAUNCH_TIMEOUT;
    }
    run_next(choose(target, ready));
  }
  return target->context->sticky;
}

CUresult drain_context(CUcontext context) {
  for (CUstream stream : std::vector<CUstream>(streams)) {
    if (stream->context == context) drain(stream, stream->enqueued);
  }
  return context->sticky;
}

CUresult capture_error(CUstream stream, CUresult code, const char* call) {
  report(&device_of(stream->context), "%s is not allowed while a stream captures", call);
  stream->capture->is_invalid = true;
  return code;
}

CUstream capturing_stream() {
  for (CUstream stream : streams) {
    if (stream->capture && stream->context == current_context) return stream;
  }
  return nullptr;
}

}  // namespace standin

using namespace standin;

API CUresult cuStreamCreate(CUstream* stream, unsigned) {
  WITH_CONTEXT();
  *stream = make_stream(current_context);
  return CUDA_SUCCESS;
}

API CUresult cuStreamDestroy_v2(CUstream stream) {
  WITH_DRIVER();
  drain(stream, stream->enqueued);
  streams.erase(std::remove(streams.begin(), streams.end(), stream), streams.end());
  delete stream;
  return CUDA_SUCCESS;
}

API CUresult cuStreamSynchronize(CUstream stream) {
  WITH_CONTEXT();
  NOT_IN_CAPTURE("cuStreamSynchronize");
  stream = stream_or_null(stream);
  device_of(stream->context).counters.host_waits++;
  return drain(stream, stream->enqueued);
}

API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  WITH_CONTEXT();
  stream = stream_or_null(stream);
  if (!event->stream) return CUDA_SUCCESS;
  if (stream->capture && event->capture == stream->capture) return CUDA_SUCCESS;   // one stream: the order is there
  if (stream->capture) return capture_error(stream, CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a wait for an event outside of the capture");
  Operation wait{"cuStreamWaitEvent", [](CUstream) { return CUDA_SUCCESS; }, nullptr, event->stream, event->position};
  return enqueue(stream, std::move(wait));
}

API CUresult cuEventCreate(CUevent* event, unsigned) {
  WITH_CONTEXT();
  *event = new CUevent_st{current_context};
  return CUDA_SUCCESS;
}

API CUresult cuEventDestroy_v2(CUevent event) {
  WITH_DRIVER();
  if (event->stream) drain(event->stream, event->position);
  delete event;
  return CUDA_SUCCESS;
}

API CUresult cuEventRecord(CUevent event, CUstream stream) {
  WITH_CONTEXT();
  stream = stream_or_null(stream);
  if (event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
  event->capture = stream->capture;
  event->stream = stream;
  if (stream->capture) return CUDA_SUCCESS;
  CUresult code = enqueue(stream, {"cuEventRecord", [](CUstream) { return CUDA_SUCCESS; }});
  event->position = stream->enqueued;
  return code;
}

API CUresult cuEventQuery(CUevent event) {
  WITH_CONTEXT();
  if (!event->stream || event->stream->done >= event->position) return CUDA_SUCCESS;
  drain(event->stream, event->stream->done + 1);   // work goes on while the host asks
  return current_context->sticky ? current_context->sticky : CUDA_ERROR_NOT_READY;
}

API CUresult cuEventSynchronize(CUevent event) {
  WITH_CONTEXT();
  if (!event->stream) return CUDA_SUCCESS;
  if (event->capture && event->stream->capture == event->capture) return capture_error(event->stream, CUDA_ERROR_CAPTURED_EVENT, "cuEventSynchronize");
  device_of(event->context).counters.event_waits++;
  return drain(event->stream, event->position);
}

API int standin_enqueue(void* stream, const char* name, void (*work)(void*), void* data, void (*release)(void*)) {
  WITH_CONTEXT();
  std::shared_ptr<void> owned(data, release);
  return enqueue(stream_or_null(static_cast<CUstream>(stream)), {name, [work, owned](CUstream s) {
    s->writes = {};
    work(owned.get());
    return CUDA_SUCCESS;
  }});
}
