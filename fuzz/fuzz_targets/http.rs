//! See `tasker_fuzz::http`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasker_fuzz::http(data));
