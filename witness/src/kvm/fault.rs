//! What the first process of a machine says before it dies of a fault of its own: nobody is there to look at it afterwards.

use std::io::Write as _;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The name of the call that is being performed, and its length; how many there were.
static NAME: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// A call is about to be performed.
pub fn about_to(name: &'static str) {
    LENGTH.store(0, Relaxed);
    NAME.store(name.as_ptr().cast_mut(), Relaxed);
    LENGTH.store(name.len(), Relaxed);
    CALLS.fetch_add(1, Relaxed);
}

/// The instruction that a signal came at.
fn instruction(context: *const libc::ucontext_t) -> u64 {
    // SAFETY: the kernel gives a handler with SA_SIGINFO the interrupted context.
    let machine = unsafe { &(*context).uc_mcontext };
    #[cfg(target_arch = "aarch64")]
    return machine.pc;
    #[cfg(target_arch = "x86_64")]
    return machine.gregs[libc::REG_RIP as usize] as u64;
    #[cfg(target_arch = "riscv64")]
    return machine.__gregs[0];
}

extern "C" fn say(
    signal: libc::c_int,
    info: *const libc::siginfo_t,
    context: *const libc::ucontext_t,
) {
    // SAFETY: for a fault the kernel fills the address in.
    let address = unsafe { (*info).si_addr() } as u64;
    let (name, length) = (NAME.load(Relaxed), LENGTH.load(Relaxed));
    let call: &[u8] = if name.is_null() {
        b"no call"
    } else {
        // SAFETY: a string that lives for ever; its length is stored after it, and 0 before.
        unsafe { std::slice::from_raw_parts(name, length) }
    };
    // No allocation: whose lock this thread may hold.
    let mut text = [0; 512];
    let left = {
        let mut rest = &mut text[..];
        let _ = write!(
            rest,
            "\nerror: signal {signal} at instruction 0x{:x}, address 0x{address:x}; about_to() is at 0x{:x}; call {}: ",
            instruction(context),
            about_to as fn(&'static str) as usize,
            CALLS.load(Relaxed)
        );
        let _ = rest.write_all(call);
        let _ = rest.write_all(b"\n");
        rest.len()
    };
    // SAFETY: bytes of this function's own; and the signal's usual end, once this has returned to what it came at.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len() - left);
        libc::signal(signal, libc::SIG_DFL);
    }
}

/// From now on a fault of this process is said before it ends it.
pub fn install() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
        // SAFETY: the action is zeroed and then filled in; the handler neither allocates nor locks.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = say as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::FromRawFd as _;

    /// A child that faults says where, and dies of it as it would have.
    #[test]
    fn a_fault_is_said_before_it_ends_the_process() {
        const ADDRESS: usize = 0x10;
        let mut ends = [0; 2];
        // SAFETY: a pipe of our own; the child calls nothing that allocates or locks before it faults.
        let (child, mut said) = unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let child = libc::fork();
            if child == 0 {
                libc::dup2(ends[1], 2);
                super::install();
                super::about_to("KVM_RUN");
                std::ptr::with_exposed_provenance_mut::<u8>(ADDRESS).write_volatile(1);
                libc::_exit(0);
            }
            libc::close(ends[1]);
            (child, std::fs::File::from_raw_fd(ends[0]))
        };
        let mut text = String::new();
        said.read_to_string(&mut text).expect("what the child said");
        let mut status = 0;
        // SAFETY: waits for the child.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
        assert!(
            text.contains("error: signal 11 at instruction 0x"),
            "{text}"
        );
        assert!(text.contains("address 0x10;"), "{text}");
        assert!(text.contains("call 1: KVM_RUN\n"), "{text}");
    }
}
