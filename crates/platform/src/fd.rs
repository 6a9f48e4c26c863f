//! Descriptors of Linux that are shared with somebody who is not trusted.
//!
//! What two processes have open in common is one open file, with one set of flags: `O_NONBLOCK`
//! says nothing about the next call, because the other may have cleared it since. So what must not
//! wait says so with the call itself. That is possible for reading; for writing to an eventfd there
//! is no such call.

use core::cmp;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::EventFd;

/// `RWF_NOWAIT`, of all architectures.
const NOWAIT: libc::c_long = 8;
/// `KCMP_FILE`.
const KCMP_FILE: libc::c_long = 0;

/// Returns the descriptor of an eventfd, which does not know the standard library's types.
pub fn of_eventfd(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: an `EventFd` owns its descriptor until it is dropped: it has made it, or whoever
    // called its unsafe `from_raw_fd` has said so.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Returns whether calls without a flag of their own wait no longer than they have to. It may have
/// changed by the time the caller looks at it.
///
/// # Errors
/// If it is not open.
pub fn is_non_blocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the call touches no memory.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags & libc::O_NONBLOCK != 0),
    }
}

/// Reads what there is, and does not wait for more, whatever the flags of the open file say.
///
/// Where the kernel has no such call, or not for this kind of file (eventfds have it since Linux
/// 5.8, pipes and sockets since later), this is a plain read, and waits if somebody has cleared
/// `O_NONBLOCK`.
///
/// # Errors
/// What the kernel says: [`WouldBlock`](io::ErrorKind::WouldBlock) if there is nothing.
pub fn read_now(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let buffer = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: the kernel writes to `into`, which is borrowed for the call. (Offset -1, in two
    // halves, is "where the file is".)
    let read = unsafe {
        let (iov, here) = (&raw const buffer, -1 as libc::c_long);
        libc::syscall(libc::SYS_preadv2, fd.as_raw_fd(), iov, 1 as libc::c_long, here, here, NOWAIT)
    };
    let error = match usize::try_from(read) {
        Ok(read) => return Ok(read),
        Err(_) => io::Error::last_os_error(),
    };
    // EPERM is what a filter of system calls says that does not know the call.
    if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)) {
        return Err(error);
    }
    // SAFETY: as above.
    let read = unsafe { libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Compares the open files of two descriptors of this process: `Equal` for duplicates of one, else
/// an order that stays as it is as long as both are open. `None` if the kernel does not tell (it
/// needs `CONFIG_KCMP`, and filters of system calls often deny it).
pub fn compare_files(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Option<cmp::Ordering> {
    static DENIED: AtomicBool = AtomicBool::new(false);
    // Some filters kill whoever asks again and again; none gives way.
    if DENIED.load(Ordering::Relaxed) {
        return None;
    }
    let process = libc::c_long::from(std::process::id() as i32);
    let [one, other] = [one, other].map(|fd| libc::c_long::from(fd.as_raw_fd()));
    // SAFETY: the call touches no memory.
    match unsafe { libc::syscall(libc::SYS_kcmp, process, process, KCMP_FILE, one, other) } {
        0 => Some(cmp::Ordering::Equal),
        1 => Some(cmp::Ordering::Less),
        2 => Some(cmp::Ordering::Greater),
        _ => {
            let why = io::Error::last_os_error().raw_os_error();
            DENIED.fetch_or(matches!(why, Some(libc::EPERM | libc::ENOSYS)), Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn would_block(result: io::Result<usize>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn an_eventfd_that_blocks_is_read_without_waiting() {
        let event = EventFd::new(0).unwrap();
        assert!(!is_non_blocking(of_eventfd(&event)).unwrap());
        assert!(is_non_blocking(of_eventfd(&EventFd::new(EFD_NONBLOCK).unwrap())).unwrap());
        let mut count = [0; 8];
        assert!(would_block(read_now(of_eventfd(&event), &mut count)));
        event.write(3).unwrap();
        assert_eq!(read_now(of_eventfd(&event), &mut count).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(count), 3);
    }

    #[test]
    fn a_stream_is_read_as_far_as_it_goes() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[7; 3]).unwrap();
        let mut bytes = [0; 5];
        assert_eq!(read_now(reader.as_fd(), &mut bytes).unwrap(), 3);
        drop(writer);
        assert_eq!(read_now(reader.as_fd(), &mut bytes).unwrap(), 0);
    }

    #[test]
    fn duplicates_are_one_file_and_others_have_an_order() {
        let events = [(); 4].map(|()| EventFd::new(0).unwrap());
        let [one, other, ..] = &events;
        if compare_files(of_eventfd(one), of_eventfd(one)).is_none() {
            println!("skipped: the kernel does not compare files here");
            return;
        }
        let again = one.try_clone().unwrap();
        assert_eq!(compare_files(of_eventfd(one), of_eventfd(&again)), Some(cmp::Ordering::Equal));
        let order = compare_files(of_eventfd(one), of_eventfd(other)).unwrap();
        assert_ne!(order, cmp::Ordering::Equal);
        assert_eq!(compare_files(of_eventfd(other), of_eventfd(one)), Some(order.reverse()));
    }
}
