// Graphs: the operations of a capture, run again in their order.
#include "state.h"

using namespace standin;

API CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode) {
  WITH_CONTEXT();
  if (stream_or_null(stream) == current_context->null_stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capture = new CUgraph_st{};
  return CUDA_SUCCESS;
}

API CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  WITH_CONTEXT();
  if (!stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  CUgraph captured = stream->capture;
  stream->capture = nullptr;
  *graph = nullptr;
  if (captured->is_invalid) {
    delete captured;
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  }
  *graph = captured;
  return CUDA_SUCCESS;
}

API CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
  WITH_CONTEXT();
  *executable = new CUgraphExec_st{graph->operations};
  return CUDA_SUCCESS;
}

// The first node of a graph never overlaps with what is before the graph.
API CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
  WITH_CONTEXT();
  NOT_IN_CAPTURE("cuGraphLaunch");
  stream = stream_or_null(stream);
  device_of(stream->context).counters.graph_launches++;
  CUresult code = enqueue(stream, {"cuGraphLaunch", [](CUstream s) {
    s->writes = {};
    return CUDA_SUCCESS;
  }});
  for (const Operation& operation : executable->operations) {
    if (!code) code = enqueue(stream, operation);
  }
  return code;
}

API CUresult cuGraphUpload(CUgraphExec, CUstream) { return CUDA_SUCCESS; }

API CUresult cuGraphDestroy(CUgraph graph) {
  delete graph;
  return CUDA_SUCCESS;
}

API CUresult cuGraphExecDestroy(CUgraphExec executable) {
  delete executable;
  return CUDA_SUCCESS;
}
