/**
 * Streams, events, captures and graphs. Work waits in its stream until something synchronises: so a result that is read too soon
 * is not there. A capture refuses what a device refuses, and a replay does again all that was recorded.
 */
#include "device.h"

#include <algorithm>
#include <cstring>

namespace device {

static Stream defaultStream = {true, {}, 0, 0, nullptr};
static std::vector<Stream *> streams = {&defaultStream};
std::map<const void *, std::string> handles;

void hold(const char *kind, const void *handle) { handles[handle] = kind; }

int check_handle(const char *call, const char *kind, const void *handle) {
  const auto found = handles.find(handle);
  if (found != handles.end() && found->second == kind) return SUCCESS;
  return refuse(call, std::string("of what is no ") + kind, INVALID_HANDLE);
}

int drop(const char *call, const char *kind, const void *handle) {
  const int error = check_handle(call, kind, handle);
  if (error == SUCCESS) handles.erase(handle);
  return error;
}

static bool is_kernel(const std::string &name) {
  static const std::vector<std::string> others = {"copy", "set", "event", "take", "give back"};
  return std::find(others.begin(), others.end(), name) == others.end();
}

Stream *stream_of(void *handle) {
  const auto number = (uintptr_t)handle;
  return number <= 2 ? &defaultStream : (Stream *)handle; /* 1 and 2: CUDA's names of the default stream */
}

void drain(Stream *stream, uint64_t position) {
  while (stream->numDone < position && !stream->queue.empty()) {
    Work work = std::move(stream->queue.front());
    stream->queue.erase(stream->queue.begin());
    stream->numDone++;
    if (is_kernel(work.name)) book.launches[work.name]++;
    work.run();
  }
}

void drain(Stream *stream) { drain(stream, stream->numQueued); }

void drain_all() {
  for (Stream *stream : streams) drain(stream);
}

int submit(const char *call, void *handle, Work work) {
  Stream *stream = stream_of(handle);
  if (stream->capture != nullptr) {
    if (!stream->capture->isValid) return give(CAPTURE_INVALIDATED);
    stream->capture->graph->works.push_back(std::move(work));
    return SUCCESS;
  }
  if (stream == &defaultStream && is_own()) refuse(call, "on the default stream, by our own library", SUCCESS);
  if (stream == &defaultStream) {
    for (Stream *other : streams) {
      if (!other->isBlocking) continue;
      if (other->capture != nullptr) {
        other->capture->isValid = false;
        return refuse(call, "on the default stream while a stream that waits for it is captured", CAPTURE_IMPLICIT);
      }
      drain(other);
    }
  } else if (stream->isBlocking) {
    drain(&defaultStream);
  }
  stream->queue.push_back(std::move(work));
  stream->numQueued++;
  return SUCCESS;
}

int refuse_while_capturing(const char *call, int error) {
  bool isRefused = false;
  for (Stream *stream : streams) {
    Capture *capture = stream->capture;
    if (capture == nullptr || capture->mode == RELAXED) continue;
    if (capture->mode == THREAD_LOCAL && capture->thread != std::this_thread::get_id()) continue;
    capture->isValid = false;
    isRefused = true;
  }
  return isRefused ? refuse(call, "while capturing", error) : SUCCESS;
}

static int synchronise(const char *call, Stream *stream, uint64_t position) {
  if (stream->capture != nullptr) {
    stream->capture->isValid = false;
    return refuse(call, "while capturing", CAPTURE_UNSUPPORTED);
  }
  book.synchronisations++;
  drain(stream, position);
  return SUCCESS;
}

}  // namespace device

using namespace device;

EXPORT int cudaStreamCreateWithFlags(void **out, unsigned flags) {
  ENTER(cudaStreamCreateWithFlags);
  auto *stream = new Stream{(flags & 1) == 0, {}, 0, 0, nullptr};
  streams.push_back(stream);
  hold("stream", stream);
  *out = stream;
  return SUCCESS;
}

EXPORT int cudaStreamCreate(void **out) { return cudaStreamCreateWithFlags(out, 0); }

EXPORT int cudaStreamDestroy(void *handle) {
  ENTER(cudaStreamDestroy);
  if (const int error = drop("cudaStreamDestroy", "stream", handle)) return error;
  Stream *stream = (Stream *)handle;
  drain(stream);
  streams.erase(std::find(streams.begin(), streams.end(), stream));
  delete stream;
  return SUCCESS;
}

EXPORT int cudaStreamSynchronize(void *stream) {
  ENTER(cudaStreamSynchronize);
  return synchronise("cudaStreamSynchronize", stream_of(stream), stream_of(stream)->numQueued);
}

/** Whoever looks again and again waits: the first look finds the work unfinished, the next one that it is done. */
EXPORT int cudaStreamQuery(void *handle) {
  ENTER(cudaStreamQuery);
  Stream *stream = stream_of(handle);
  if (stream->capture != nullptr) {
    stream->capture->isValid = false;
    return refuse("cudaStreamQuery", "while capturing", CAPTURE_UNSUPPORTED);
  }
  if (stream->numDone == stream->numQueued) return SUCCESS;
  book.synchronisations++;
  drain(stream);
  return give(NOT_READY);
}

EXPORT int cudaDeviceSynchronize() {
  ENTER(cudaDeviceSynchronize);
  for (Stream *stream : streams) {
    if (stream->capture == nullptr) continue;
    stream->capture->isValid = false;
    return refuse("cudaDeviceSynchronize", "while capturing", CAPTURE_UNSUPPORTED);
  }
  book.synchronisations++;
  drain_all();
  return SUCCESS;
}

EXPORT int cudaLaunchHostFunc(void *stream, void (*call)(void *), void *data) {
  ENTER(cudaLaunchHostFunc);
  return submit("cudaLaunchHostFunc", stream, {"host", [=] { call(data); }});
}

EXPORT int cudaEventCreateWithFlags(void **out, unsigned) {
  ENTER(cudaEventCreateWithFlags);
  *out = new Event{nullptr, 0, false};
  hold("event", *out);
  return SUCCESS;
}

EXPORT int cudaEventCreate(void **out) { return cudaEventCreateWithFlags(out, 0); }

EXPORT int cudaEventDestroy(void *event) {
  ENTER(cudaEventDestroy);
  if (const int error = drop("cudaEventDestroy", "event", event)) return error;
  delete (Event *)event;
  return SUCCESS;
}

EXPORT int cudaEventRecord(void *handle, void *streamHandle) {
  ENTER(cudaEventRecord);
  auto *event = (Event *)handle;
  Stream *stream = stream_of(streamHandle);
  /* In a capture it marks a place in the graph, and is nothing that the graph does. */
  if (stream->capture == nullptr) {
    if (const int error = submit("cudaEventRecord", streamHandle, {"event", [] {}})) return error;
  }
  *event = {stream, stream->numQueued, stream->capture != nullptr};
  return SUCCESS;
}

EXPORT int cudaEventSynchronize(void *handle) {
  ENTER(cudaEventSynchronize);
  const auto *event = (Event *)handle;
  if (event->stream == nullptr) return SUCCESS;
  if (event->isCaptured) {
    if (event->stream->capture != nullptr) event->stream->capture->isValid = false;
    return refuse("cudaEventSynchronize", "of an event in a capture", CAPTURED_EVENT);
  }
  return synchronise("cudaEventSynchronize", event->stream, event->position);
}

EXPORT int cudaStreamWaitEvent(void *streamHandle, void *handle, unsigned) {
  ENTER(cudaStreamWaitEvent);
  const auto *event = (Event *)handle;
  Stream *stream = stream_of(streamHandle);
  if (event->stream == nullptr || event->stream == stream) return SUCCESS;
  if (event->isCaptured || stream->capture != nullptr) {
    return refuse("cudaStreamWaitEvent", "joins a stream to a capture, which is not simulated", CAPTURE_ISOLATION);
  }
  Stream *other = event->stream;
  const uint64_t position = event->position;
  return submit("cudaStreamWaitEvent", streamHandle, {"event", [=] { drain(other, position); }});
}

EXPORT int cudaEventElapsedTime(float *ms, void *, void *) {
  ENTER(cudaEventElapsedTime);
  *ms = 1;
  return SUCCESS;
}

EXPORT int cudaStreamIsCapturing(void *stream, int *status) {
  ENTER(cudaStreamIsCapturing);
  const Capture *capture = stream_of(stream)->capture;
  *status = capture == nullptr ? 0 : capture->isValid ? 1 : 2;
  return SUCCESS;
}

EXPORT int cudaStreamBeginCapture(void *handle, int mode) {
  ENTER(cudaStreamBeginCapture);
  Stream *stream = stream_of(handle);
  if (stream == &defaultStream) return refuse("cudaStreamBeginCapture", "of the default stream", CAPTURE_UNSUPPORTED);
  if (stream->capture != nullptr) return refuse("cudaStreamBeginCapture", "in a capture", ILLEGAL_STATE);
  stream->capture = new Capture{new Graph{}, mode, std::this_thread::get_id(), true};
  return SUCCESS;
}

/** The capture ends even where this is made to fail. */
EXPORT int cudaStreamEndCapture(void *handle, void **out) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  const int fault = enter("cudaStreamEndCapture");
  Stream *stream = stream_of(handle);
  Capture *capture = stream->capture;
  *out = nullptr;
  if (capture == nullptr) return give(ILLEGAL_STATE);
  if (capture->mode != RELAXED && capture->thread != std::this_thread::get_id()) return give(CAPTURE_WRONG_THREAD);
  stream->capture = nullptr;
  const bool isValid = capture->isValid && fault == SUCCESS;
  if (isValid) {
    *out = capture->graph;
    hold("graph", *out);
    book.captures++;
  } else {
    delete capture->graph;
  }
  delete capture;
  return isValid ? SUCCESS : give(fault != SUCCESS ? fault : CAPTURE_INVALIDATED);
}

EXPORT int cudaGraphInstantiate(void **out, void *graph, unsigned long long) {
  ENTER(cudaGraphInstantiate);
  if (const int error = check_handle("cudaGraphInstantiate", "graph", graph)) return error;
  *out = new Graph(*(Graph *)graph);
  hold("executable graph", *out);
  return SUCCESS;
}

EXPORT int cudaGraphLaunch(void *exec, void *handle) {
  ENTER(cudaGraphLaunch);
  if (const int error = check_handle("cudaGraphLaunch", "executable graph", exec)) return error;
  Stream *stream = stream_of(handle);
  if (stream->capture != nullptr) {
    stream->capture->isValid = false;
    return refuse("cudaGraphLaunch", "while capturing", CAPTURE_UNSUPPORTED);
  }
  book.replays++;
  for (const Work &work : ((Graph *)exec)->works) {
    if (const int error = submit("cudaGraphLaunch", handle, work)) return error;
  }
  return SUCCESS;
}

/** Of the nodes, only how many and of what kind is asked: a node is its work. */
EXPORT int cudaGraphGetNodes(void *graph, void **nodes, size_t *count) {
  ENTER(cudaGraphGetNodes);
  auto &works = ((Graph *)graph)->works;
  for (size_t i = 0; nodes != nullptr && i < *count && i < works.size(); i++) nodes[i] = &works[i];
  if (nodes == nullptr || *count > works.size()) *count = works.size();
  return SUCCESS;
}

EXPORT int cudaGraphNodeGetType(void *node, int *type) {
  ENTER(cudaGraphNodeGetType);
  const std::string &name = ((Work *)node)->name;
  static const std::map<std::string, int> types = {{"copy", 1}, {"set", 2}, {"host", 3}, {"take", 10}, {"give back", 11}};
  const auto known = types.find(name);
  *type = known == types.end() ? 0 : known->second;
  return SUCCESS;
}

/** `struct cudaMemcpy3DParms`, by the places of its fields. */
EXPORT int cudaGraphMemcpyNodeGetParams(void *node, char *params) {
  ENTER(cudaGraphMemcpyNodeGetParams);
  const auto *work = (Work *)node;
  if (work->name != "copy") return give(INVALID_VALUE);
  memset(params, 0, 160);
  memcpy(params + 32, &work->from, sizeof work->from);
  memcpy(params + 96, &work->to, sizeof work->to);
  return SUCCESS;
}

EXPORT int cudaGraphDestroy(void *graph) {
  ENTER(cudaGraphDestroy);
  if (const int error = drop("cudaGraphDestroy", "graph", graph)) return error;
  delete (Graph *)graph;
  return SUCCESS;
}

EXPORT int cudaGraphExecDestroy(void *exec) {
  ENTER(cudaGraphExecDestroy);
  if (const int error = drop("cudaGraphExecDestroy", "executable graph", exec)) return error;
  delete (Graph *)exec;
  return SUCCESS;
}
