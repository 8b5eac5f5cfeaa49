//! See `tasker_fuzz::wfformat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasker_fuzz::wfformat(data));
