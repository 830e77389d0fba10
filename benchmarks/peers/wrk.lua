-- What wrk sends, and what it says in the end: one line of JSON, the last of its output.

wrk.method = "POST"
wrk.body = os.getenv("BENCHMARK_BODY")
for name, value in os.getenv("BENCHMARK_HEADERS"):gmatch("([^\n]-): ([^\n]*)") do
   wrk.headers[name] = value
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      '{"answers": %d, "bytes": %d, "seconds": %.6f, "errors": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
      summary.requests, summary.bytes, summary.duration / 1e6,
      e.connect + e.read + e.write + e.status + e.timeout,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
   ))
end
