//! See `tasker_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasker_fuzz::config(data));
