//! The time limit of a run: a timer that interrupts this thread's `KVM_RUN` with a signal.
//!
//! The signal repeats, so that one which lands just before the ioctl costs ten milliseconds and not the run. It is armed only around `KVM_RUN`:
//! a signal that is pending during `KVM_RESET_DIRTY_RINGS` would change what that does (v6.17 and later leave early).

use std::marker::PhantomData;
use std::sync::Once;
use std::time::Duration;

use super::{Errno, Sys};

/// How often the signal repeats after the limit, in nanoseconds.
const REPEAT_NS: i64 = 10_000_000;

/// A timer for the thread that made it.
pub struct Alarm {
    timer: libc::timer_t,
    /// The timer names a thread: it may not move to another.
    not_send: PhantomData<*const ()>,
}

extern "C" fn nothing(_: libc::c_int) {}

/// The signal that interrupts `KVM_RUN`.
#[must_use]
pub fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Installs the handler of [`signal`], which does nothing: that a signal came is enough to end `KVM_RUN`.
pub fn install_handler() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the action is zeroed and then filled in; the handler is async-signal-safe since it does nothing. No SA_RESTART.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal(), &action, std::ptr::null_mut());
        }
    });
}

impl Alarm {
    /// A timer, not armed.
    ///
    /// # Errors
    /// What timer_create gives; `EAGAIN` where the system has no timers left.
    pub fn new() -> Sys<Self> {
        install_handler();
        // SAFETY: the event is zeroed and then filled in; the thread id is this thread's own.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal();
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = std::mem::zeroed();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) != 0 {
                return Err(Errno::last());
            }
            Ok(Self {
                timer,
                not_send: PhantomData,
            })
        }
    }

    fn set(&self, first_ns: i64, repeat_ns: i64) {
        let spec = |ns: i64| libc::timespec {
            tv_sec: (ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        };
        let value = libc::itimerspec {
            it_interval: spec(repeat_ns),
            it_value: spec(first_ns),
        };
        // SAFETY: the timer is this value's and the specification is valid.
        let ret = unsafe { libc::timer_settime(self.timer, 0, &value, std::ptr::null_mut()) };
        assert_eq!(ret, 0, "a timer of ours takes a valid time");
    }

    /// Runs `work` with signals from `limit` on.
    pub fn within<T>(&self, limit: Duration, work: impl FnOnce() -> T) -> T {
        let first = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX).max(1);
        self.set(first, REPEAT_NS);
        let result = work();
        self.set(0, 0);
        result
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's and is used no more.
        unsafe { libc::timer_delete(self.timer) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_interrupts_a_call_that_sleeps() {
        let alarm = Alarm::new().expect("a timer");
        let interrupted = alarm.within(Duration::from_millis(5), || {
            let mut second = libc::timespec {
                tv_sec: 5,
                tv_nsec: 0,
            };
            // SAFETY: sleeping; the remainder is written to the structure passed.
            unsafe { libc::nanosleep(&second, &mut second) }
        });
        assert_eq!((interrupted, Errno::last()), (-1, Errno(libc::EINTR)));
    }
}
