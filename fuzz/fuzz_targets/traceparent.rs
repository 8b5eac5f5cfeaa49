//! See `tasker_fuzz::traceparent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasker_fuzz::traceparent(data));
