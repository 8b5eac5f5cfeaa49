//! See `tasker_fuzz::template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasker_fuzz::template(data));
