//! A context whose stack overflows is told as that.
//!
//! Stacks end at a guard page, which the context touches: a fault that says nothing to its author.
//! So faults are looked at first, on the alternate signal stack, and those at the stack of a
//! context are told by its name before the process is aborted: the context cannot go on, and
//! nothing could be unwound. All other faults go to the handler that was there.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Once, OnceLock};
use std::{mem, ptr};

use libc::{c_int, c_void, siginfo_t};

use crate::machine::cell::faulted;

static INSTALL: Once = Once::new();

/// The signals of a touched guard page, and the handlers that were there.
static BEFORE: [(c_int, OnceLock<libc::sigaction>); 2] =
    [(libc::SIGSEGV, OnceLock::new()), (libc::SIGBUS, OnceLock::new())];

/// Has overflows of this OS thread's contexts told.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        for (signal, before) in &BEFORE {
            // SAFETY: all zeros is a value of the type, and the calls write or read one each. The
            // handler does what a signal handler may: it reads, writes to a descriptor and aborts.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                libc::sigaction(*signal, ptr::null(), &mut action);
                let _ = before.set(action);
                action = mem::zeroed();
                action.sa_sigaction = fault as extern "C" fn(_, _, _) as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(*signal, &action, ptr::null_mut());
            }
        }
    });
    ALTERNATE.with_borrow_mut(|alternate| {
        if alternate.is_none() {
            *alternate = Some(Alternate::new());
        }
    });
}

thread_local! {
    static ALTERNATE: RefCell<Option<Alternate>> = const { RefCell::new(None) };
}

/// Bytes of an alternate stack.
const ALTERNATE_BYTES: usize = 64 * 1024;

/// What the handler runs on. The threads of the standard library have it; others are given it here,
/// until they end.
struct Alternate {
    ours: Option<Vec<u8>>,
}

impl Alternate {
    fn new() -> Alternate {
        // SAFETY: the calls write or read one value of the type. The memory stays where it is until
        // `drop` takes it back.
        unsafe {
            let mut stack: libc::stack_t = mem::zeroed();
            libc::sigaltstack(ptr::null(), &mut stack);
            if stack.ss_flags & libc::SS_DISABLE == 0 {
                return Alternate { ours: None };
            }
            let mut ours = Vec::<u8>::with_capacity(ALTERNATE_BYTES);
            stack = libc::stack_t {
                ss_sp: ours.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: ALTERNATE_BYTES,
            };
            libc::sigaltstack(&stack, ptr::null_mut());
            Alternate { ours: Some(ours) }
        }
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        if self.ours.is_some() {
            // SAFETY: the call reads one value of the type. The thread ends: it is not in a
            // handler.
            unsafe {
                let stack = libc::stack_t {
                    ss_sp: ptr::null_mut(),
                    ss_flags: libc::SS_DISABLE,
                    ss_size: ALTERNATE_BYTES,
                };
                libc::sigaltstack(&stack, ptr::null_mut());
            }
        }
    }
}

extern "C" fn fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes what it knows of the signal; if it is a fault, that is an address.
    // A positive code says that it does not come from a process.
    let address = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr() as usize) };
    if let Some((name, bytes)) = address.and_then(faulted) {
        let mut text = [0; 512];
        let mut rest = &mut text[..];
        let kib = bytes / 1024;
        let _ = write!(
            rest,
            "\nA context has overflowed its stack of {kib} KiB. `Explore::stack_size` makes stacks larger; a `Box` keeps \
             large values out of them.\nThe context is: {name}\n"
        );
        let length = 512 - rest.len();
        // SAFETY: so many bytes of the text have been written.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), length) };
        std::process::abort();
    }
    pass_on(signal, info, context);
}

/// Leaves a fault that is not an overflow to the handler that was there.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let before =
        BEFORE.iter().find(|(other, _)| *other == signal).and_then(|(_, before)| before.get());
    // SAFETY: what is called is what the kernel would have called, as it would have: the flag says
    // which of the two types the address has. Without a handler the default is put back, and the
    // fault, when this returns, happens again.
    unsafe {
        match before {
            Some(before) if ![libc::SIG_DFL, libc::SIG_IGN].contains(&before.sa_sigaction) => {
                if before.sa_flags & libc::SA_SIGINFO != 0 {
                    type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                    mem::transmute::<usize, Handler>(before.sa_sigaction)(signal, info, context);
                } else {
                    mem::transmute::<usize, extern "C" fn(c_int)>(before.sa_sigaction)(signal);
                }
            }
            _ => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}
