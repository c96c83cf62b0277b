// A stand-in for cuBLASLt: products of f32, f16 and bf16 matrices with f32 sums, batches and a bias, on the stand-in's
// streams. Sums run along k in order. Numbers of types and attributes: cuBLAS documentation.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>
#include <memory>
#include <vector>

#include "../abi.h"

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum Status { kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kExecutionFailed = 13, kNotSupported = 15 };
enum Type { kF32 = 0, kF16 = 2, kBf16 = 14 };
enum Compute { kCompute32 = 68 };
enum DescAttribute { kPointerMode = 2, kTransA = 3, kTransB = 4, kEpilogue = 7, kBiasPointer = 8 };
enum LayoutAttribute { kRows = 2, kColumns = 3, kBatch = 5, kBatchStride = 6 };
enum Epilogue { kNoEpilogue = 1, kBias = 4 };
constexpr int kAlgorithmId = 1;
constexpr unsigned kConfigAttributes = 9;

struct Matrix {
  int type;
  uint64_t rows, columns;
  int64_t leading;   // elements from one column to the next
  int32_t batch;
  int64_t batch_stride;
};

struct Operation {
  int compute;
  int32_t trans_a, trans_b;
  uint32_t epilogue;
  uint64_t bias;
};

struct Preference {
  uint64_t workspace;
};

// cublasLtMatmulAlgo_t: 64 opaque bytes.
struct Algorithm {
  uint32_t is_set;
  uint32_t values[kConfigAttributes + 6];
};
static_assert(sizeof(Algorithm) == 64);

struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

struct Sizes {
  uint64_t m, n, k;
};

bool is_type(int type) { return type == kF32 || type == kF16 || type == kBf16; }
size_t type_bytes(int type) { return type == kF32 ? 4 : 2; }

float read(const char* base, int type, uint64_t index) {
  if (type == kF32) return reinterpret_cast<const float*>(base)[index];
  if (type == kF16) return __half2float(reinterpret_cast<const __half*>(base)[index]);
  return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(base)[index]);
}

void write(char* base, int type, uint64_t index, float value) {
  if (type == kF32) reinterpret_cast<float*>(base)[index] = value;
  else if (type == kF16) reinterpret_cast<__half*>(base)[index] = __float2half_rn(value);
  else reinterpret_cast<__nv_bfloat16*>(base)[index] = __float2bfloat16_rn(value);
}

int check(const Operation& op, const Matrix* const (&matrices)[4], Sizes* sizes) {
  for (const Matrix* matrix : matrices) {
    if (!is_type(matrix->type)) return kNotSupported;
    if (matrix->leading < int64_t(matrix->rows) || matrix->batch != matrices[0]->batch) return kInvalidValue;
  }
  const Matrix &a = *matrices[0], &b = *matrices[1], &c = *matrices[2], &d = *matrices[3];
  if (op.compute != kCompute32 || a.type != b.type || (op.epilogue & ~unsigned(kNoEpilogue | kBias))) return kNotSupported;
  *sizes = {op.trans_a ? a.columns : a.rows, op.trans_b ? b.rows : b.columns, op.trans_a ? a.rows : a.columns};
  bool fits = (op.trans_b ? b.columns : b.rows) == sizes->k;
  for (const Matrix* out : {&c, &d}) fits &= out->rows == sizes->m && out->columns == sizes->n;
  return fits ? kSuccess : kInvalidValue;
}

struct Job {
  Operation op;
  Matrix a, b, c, d;
  const char *a_data, *b_data, *c_data;
  char* d_data;
  float alpha, beta;
  Sizes sizes;
};

// Rows of length k: op(A)'s rows or op(B)'s columns.
std::vector<float> rows_of(const char* data, const Matrix& matrix, bool is_contiguous, uint64_t n, uint64_t k) {
  std::vector<float> rows(n * k);
  for (uint64_t row = 0; row < n; row++) {
    for (uint64_t i = 0; i < k; i++) rows[row * k + i] = read(data, matrix.type, is_contiguous ? row * matrix.leading + i : i * matrix.leading + row);
  }
  return rows;
}

void multiply(const Job& job, int batch) {
  auto part = [batch](auto* data, const Matrix& matrix) { return data + batch * matrix.batch_stride * type_bytes(matrix.type); };
  auto [m, n, k] = job.sizes;
  std::vector<float> left = rows_of(part(job.a_data, job.a), job.a, job.op.trans_a, m, k);
  std::vector<float> right = rows_of(part(job.b_data, job.b), job.b, !job.op.trans_b, n, k);
  for (uint64_t column = 0; column < n; column++) {
    for (uint64_t row = 0; row < m; row++) {
      float sum = 0;
      for (uint64_t i = 0; i < k; i++) sum += left[row * k + i] * right[column * k + i];
      sum *= job.alpha;
      if (job.beta != 0) sum += job.beta * read(part(job.c_data, job.c), job.c.type, column * job.c.leading + row);
      if (job.op.epilogue & kBias) sum += read(reinterpret_cast<const char*>(job.op.bias), job.d.type, row);
      write(part(job.d_data, job.d), job.d.type, column * job.d.leading + row, sum);
    }
  }
}

void run(void* data) {
  const Job& job = *static_cast<Job*>(data);
  for (int batch = 0; batch < job.d.batch; batch++) multiply(job, batch);
}

template <class T>
bool assign(T* to, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return false;
  memcpy(to, value, sizeof(T));
  return true;
}

}  // namespace

API int cublasLtCreate(void** handle) {
  *handle = new int(1);
  return kSuccess;
}

API int cublasLtDestroy(void* handle) {
  delete static_cast<int*>(handle);
  return kSuccess;
}

API size_t cublasLtGetVersion() { return 130000; }

API int cublasLtMatmulDescCreate(Operation** op, int compute, int scale_type) {
  if (scale_type != kF32) return kNotSupported;
  *op = new Operation{compute, 0, 0, kNoEpilogue, 0};
  return kSuccess;
}

API int cublasLtMatmulDescDestroy(Operation* op) {
  delete op;
  return kSuccess;
}

API int cublasLtMatmulDescSetAttribute(Operation* op, int attribute, const void* value, size_t bytes) {
  int32_t mode = 0;
  bool is_set = false;
  switch (attribute) {
    case kPointerMode: is_set = assign(&mode, value, bytes) && mode == 0; break;
    case kTransA: is_set = assign(&op->trans_a, value, bytes); break;
    case kTransB: is_set = assign(&op->trans_b, value, bytes); break;
    case kEpilogue: is_set = assign(&op->epilogue, value, bytes); break;
    case kBiasPointer: is_set = assign(&op->bias, value, bytes); break;
    default: return kNotSupported;
  }
  return is_set ? kSuccess : kInvalidValue;
}

API int cublasLtMatrixLayoutCreate(Matrix** matrix, int type, uint64_t rows, uint64_t columns, int64_t leading) {
  *matrix = new Matrix{type, rows, columns, leading, 1, 0};
  return kSuccess;
}

API int cublasLtMatrixLayoutDestroy(Matrix* matrix) {
  delete matrix;
  return kSuccess;
}

API int cublasLtMatrixLayoutSetAttribute(Matrix* matrix, int attribute, const void* value, size_t bytes) {
  bool is_set = false;
  switch (attribute) {
    case kRows: is_set = assign(&matrix->rows, value, bytes); break;
    case kColumns: is_set = assign(&matrix->columns, value, bytes); break;
    case kBatch: is_set = assign(&matrix->batch, value, bytes); break;
    case kBatchStride: is_set = assign(&matrix->batch_stride, value, bytes); break;
    default: return kNotSupported;
  }
  return is_set ? kSuccess : kInvalidValue;
}

API int cublasLtMatmulPreferenceCreate(Preference** preference) {
  *preference = new Preference{0};
  return kSuccess;
}

API int cublasLtMatmulPreferenceDestroy(Preference* preference) {
  delete preference;
  return kSuccess;
}

// Preferences choose among algorithms; here is one.
API int cublasLtMatmulPreferenceSetAttribute(Preference*, int, const void*, size_t) { return kSuccess; }

API int cublasLtMatmulAlgoInit(void* handle, int, int, int, int, int, int, int id, Algorithm* algorithm) {
  if (!handle) return kNotInitialized;
  if (id != kAlgorithmId) return kInvalidValue;
  *algorithm = {};
  algorithm->is_set = 1;
  algorithm->values[0] = kAlgorithmId;
  return kSuccess;
}

API int cublasLtMatmulAlgoConfigSetAttribute(Algorithm* algorithm, int attribute, const void* value, size_t bytes) {
  if (attribute <= 0 || attribute >= int(kConfigAttributes) || bytes > 4) return kInvalidValue;
  algorithm->values[attribute] = 0;
  memcpy(&algorithm->values[attribute], value, bytes);
  return kSuccess;
}

API int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, void* value, size_t bytes, size_t* written) {
  if (attribute < 0 || attribute >= int(kConfigAttributes) || bytes > 4) return kInvalidValue;
  memcpy(value, &algorithm->values[attribute], bytes);
  *written = bytes;
  return kSuccess;
}

API int cublasLtMatmulAlgoCheck(void* handle, Operation* op, Matrix* a, Matrix* b, Matrix* c, Matrix* d, const Algorithm* algorithm, Heuristic* result) {
  Sizes sizes;
  if (!handle) return kNotInitialized;
  if (!algorithm->is_set || algorithm->values[0] != kAlgorithmId) return kInvalidValue;
  if (int status = check(*op, {a, b, c, d}, &sizes)) return status;
  *result = {};
  result->algorithm = *algorithm;
  result->waves = 1;
  return kSuccess;
}

API int cublasLtMatmulAlgoGetHeuristic(void* handle, Operation* op, Matrix* a, Matrix* b, Matrix* c, Matrix* d, Preference*, int requested,
                                       Heuristic* results, int* found) {
  *found = 0;
  if (!handle) return kNotInitialized;
  if (requested < 1) return kInvalidValue;
  Algorithm only{};
  only.is_set = 1;
  only.values[0] = kAlgorithmId;
  if (int status = cublasLtMatmulAlgoCheck(handle, op, a, b, c, d, &only, results)) return status;
  *found = 1;
  return kSuccess;
}

API int cublasLtMatmul(void* handle, Operation* op, const void* alpha, const void* a, Matrix* a_layout, const void* b, Matrix* b_layout, const void* beta,
                       const void* c, Matrix* c_layout, void* d, Matrix* d_layout, const Algorithm* algorithm, void*, size_t, void* stream) {
  Sizes sizes;
  if (!handle) return kNotInitialized;
  if (!algorithm || !algorithm->is_set) return kInvalidValue;
  if (int status = check(*op, {a_layout, b_layout, c_layout, d_layout}, &sizes)) return status;
  auto bytes = [](const void* data) { return static_cast<const char*>(data); };
  auto factor = [](const void* value) { return *static_cast<const float*>(value); };
  auto job = std::make_unique<Job>(Job{*op, *a_layout, *b_layout, *c_layout, *d_layout, bytes(a), bytes(b), bytes(c), static_cast<char*>(d), factor(alpha),
                                       factor(beta), sizes});
  auto release = [](void* data) { delete static_cast<Job*>(data); };
  return standin::standin_enqueue(stream, "cublasLtMatmul", run, job.release(), release) ? kExecutionFailed : kSuccess;
}
