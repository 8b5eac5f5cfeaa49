//! Threads that meet in memory, released by a barrier, round after round: breakers, bells and channels.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tasker_shared::{
    breaker::{Breaker, Policy, State},
    metrics::{
        Metrics,
        channel::{TrySendError, bounded},
    },
    runtime::{Bell, Topic, Wake},
};
use tasker_tests::system::PATIENCE;

const THREADS: usize = 8;

/// Runs `act` in [`THREADS`] threads that begin at the same moment.
fn at_once(act: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (act, barrier) = (&act, &barrier);
            scope.spawn(move || {
                barrier.wait();
                act(thread);
            });
        }
    });
}

/// Opens at the first failure, and lets a try pass at once.
fn breaker() -> Breaker {
    let policy =
        Policy { failures: 1, window: Duration::from_secs(60), open: Duration::ZERO, longest_open: Duration::ZERO };
    Breaker::new("meetings", policy, &Metrics::disabled())
}

#[test]
fn of_all_who_ask_an_open_breaker_at_once_one_is_let_through_and_the_next_when_it_has_failed() {
    for round in 0..500 {
        let breaker = breaker();
        breaker.admit().expect("it is closed").failed(&"for the test");
        let (passed, all_asked) = (AtomicUsize::new(0), Barrier::new(THREADS));
        at_once(|_| {
            let answer = breaker.admit();
            passed.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
            all_asked.wait();
            if let Ok(permit) = answer {
                match round % 3 {
                    0 => permit.succeeded(),
                    1 => permit.failed(&"for the test"),
                    _ => drop(permit),
                }
            }
        });
        assert_eq!(passed.into_inner(), 1, "round {round}");
        let after = if round % 3 == 0 { State::Closed } else { State::Open };
        assert_eq!(breaker.state(), after, "round {round}");
        assert!(breaker.admit().is_ok(), "nobody is locked out for ever");
    }
}

#[test]
fn a_failure_is_not_forgotten_among_successes_that_come_at_the_same_moment() {
    let policy = Policy { failures: 1, ..Policy::default() };
    for _ in 0..500 {
        let breaker = Breaker::new("meetings", policy, &Metrics::disabled());
        at_once(|thread| {
            // who asks after it has opened is refused
            if let Ok(permit) = breaker.admit() {
                if thread == 0 { permit.failed(&"for the test") } else { permit.succeeded() }
            }
        });
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.admit().is_err(), "the quick way past the lock is closed too");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_rung_for_is_slept_through() {
    const EACH: u64 = 5_000;
    let (bell, work) = (Bell::local(), Arc::new(AtomicU64::new(0)));
    let mut heard = bell.subscribe(Topic::Results);
    let ringers = {
        let (bell, work) = (bell.clone(), Arc::clone(&work));
        tokio::task::spawn_blocking(move || {
            at_once(|_| {
                for _ in 0..EACH {
                    work.fetch_add(1, Ordering::SeqCst);
                    bell.ring(Topic::Results);
                }
            });
        })
    };
    let mut done = 0;
    while done < EACH * THREADS as u64 {
        // as loops do: look for work, and sleep until the bell rings; waking by the clock is a ring that was lost
        done += work.swap(0, Ordering::SeqCst);
        if done < EACH * THREADS as u64 && work.load(Ordering::SeqCst) == 0 {
            assert_eq!(heard.wait(PATIENCE).await, Wake::Event, "{done} were done");
        }
    }
    ringers.await.expect("nobody panics");
}

#[test]
fn what_is_sent_while_the_channel_is_closed_arrives_or_comes_back() {
    for round in 0..500 {
        let (sender, mut receiver) = bounded::<usize>("meetings", "test", 3, &Metrics::disabled());
        let (accepted, returned, received) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let (senders, barrier) = (THREADS - 1, Barrier::new(THREADS));
        thread::scope(|scope| {
            for _ in 0..senders {
                let (sender, accepted, returned, barrier) = (sender.clone(), &accepted, &returned, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for value in 0..10 {
                        match sender.try_send(value) {
                            Ok(()) => accepted.fetch_add(1, Ordering::Relaxed),
                            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                                returned.fetch_add(1, Ordering::Relaxed)
                            }
                        };
                    }
                });
            }
            let (received, barrier) = (&received, &barrier);
            let receiver = &mut receiver;
            scope.spawn(move || {
                barrier.wait();
                for taken in 0..20 {
                    if taken == round % 20 {
                        receiver.close();
                    }
                    received.fetch_add(usize::from(receiver.try_recv().is_ok()), Ordering::Relaxed);
                }
            });
        });
        while receiver.try_recv().is_ok() {
            received.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(accepted.load(Ordering::Relaxed) + returned.load(Ordering::Relaxed), senders * 10);
        assert_eq!(received.load(Ordering::Relaxed), accepted.load(Ordering::Relaxed), "round {round}");
    }
}
