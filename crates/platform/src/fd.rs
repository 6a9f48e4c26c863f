//! Descriptors of Linux that are shared with somebody who is not trusted.
//!
//! What two processes have open in common is one open file, with one set of flags: `O_NONBLOCK`
//! says nothing about the next call, because the other may have cleared it since. So what must not
//! wait says so with the call itself, as [`read_now`] does. To write to an eventfd there is no such
//! call: [`Signals`] has the kernel add to it, which never waits.

use core::cmp;
use core::mem::ManuallyDrop;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

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

/// Returns the descriptor of an epoll, likewise.
pub fn of_epoll(epoll: &Epoll) -> BorrowedFd<'_> {
    // SAFETY: an `Epoll` has made its descriptor, and owns it until it is dropped.
    unsafe { BorrowedFd::borrow_raw(epoll.as_raw_fd()) }
}

/// Lends an eventfd to what wants it as an `EventFd` of `vmm-sys-util`.
pub fn with_eventfd<T>(fd: BorrowedFd<'_>, f: impl FnOnce(&EventFd) -> T) -> T {
    // SAFETY: the descriptor is open as long as it is borrowed, and this `EventFd`, which is never
    // dropped, does not close it.
    let event = ManuallyDrop::new(unsafe { EventFd::from_raw_fd(fd.as_raw_fd()) });
    f(&event)
}

/// Makes an eventfd that does not block.
///
/// # Errors
/// If there are no descriptors left.
pub fn eventfd() -> io::Result<OwnedFd> {
    let event = EventFd::new(EFD_NONBLOCK)?;
    // SAFETY: the descriptor was made just now, and the `EventFd` lets go of it.
    Ok(unsafe { OwnedFd::from_raw_fd(event.into_raw_fd()) })
}

/// Returns how many descriptors this process may have open (`RLIMIT_NOFILE`'s soft limit), or
/// `None` if the kernel does not tell.
pub fn open_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes to `limit`, which is borrowed for the call.
    let told = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    told.then_some(limit.rlim_cur)
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
    let read = read_without_waiting(fd, into);
    // EPERM is what a filter of system calls says that does not know the call.
    let lacks = |why: &io::Error| {
        matches!(why.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM))
    };
    if !read.as_ref().is_err_and(lacks) {
        return read;
    }
    // SAFETY: the kernel writes to `into`, which is borrowed for the call.
    let read = unsafe { libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

fn read_without_waiting(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let buffer = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: the kernel writes to `into`, which is borrowed for the call. (Offset -1, in two
    // halves, is "where the file is".)
    let read = unsafe {
        let (iov, here) = (&raw const buffer, -1 as libc::c_long);
        libc::syscall(libc::SYS_preadv2, fd.as_raw_fd(), iov, 1 as libc::c_long, here, here, NOWAIT)
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Returns whether [`read_now`] never waits for an eventfd here, by trying it with one that is
/// empty and blocks: not before Linux 5.8, or if a filter of system calls denies `preadv2`.
pub fn reads_eventfds_now() -> bool {
    static READS: OnceLock<bool> = OnceLock::new();
    let tried = || {
        let event = EventFd::new(0).ok()?;
        let mut count = [0; 8];
        // Its plain read would wait for ever, so there is none to fall back on.
        let read = read_without_waiting(of_eventfd(&event), &mut count);
        Some(read.is_err_and(|why| why.kind() == io::ErrorKind::WouldBlock))
    };
    if let Some(reads) = READS.get() {
        return *reads;
    }
    // Without a descriptor to try it with, it is not known yet.
    tried().is_some_and(|reads| *READS.get_or_init(|| reads))
}

/// What signals eventfds for this process, without waiting for whoever shares them.
///
/// A `write` to an eventfd whose count is at its maximum waits, if somebody has cleared
/// `O_NONBLOCK`. When an asynchronous request (`io_submit`) completes, the kernel adds 1 to an
/// eventfd of the caller's choice by itself: at the maximum, it stays there. So the way to signal
/// one is to ask for nothing to be read, which is done when the call returns.
///
/// A child that was forked cannot use its parent's.
#[derive(Debug)]
pub struct Signals {
    /// `aio_context_t`.
    context: libc::c_ulong,
    /// A pipe from which nothing is read.
    nothing: PipeReader,
}

/// `struct iocb`, a request. The two words that change places with the byte order are zero.
#[derive(Default)]
#[repr(C)]
struct Request {
    data: u64,
    key_and_flags: u64,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    completion: u32,
}

/// `IOCB_CMD_PREAD`.
const PREAD: u16 = 0;
/// An operation that no kernel has.
const NO_OPERATION: u16 = u16::MAX;
/// `IOCB_FLAG_RESFD`: an eventfd is to be signalled.
const SIGNALS: u32 = 1;
/// For how many completions there is to be room: each caller takes as many out as it puts in.
const ROOM: libc::c_long = 64;

impl Signals {
    /// Returns the one of this process.
    ///
    /// # Errors
    /// If the kernel does not do asynchronous requests (`CONFIG_AIO`), a filter of system calls
    /// denies them, or the system has no room for more (`fs.aio-max-nr`).
    pub fn of_process() -> io::Result<&'static Self> {
        static OF_PROCESS: OnceLock<Signals> = OnceLock::new();
        if let Some(signals) = OF_PROCESS.get() {
            return Ok(signals);
        }
        let new = Self::new()?;
        // Of two that come at once, one makes it in vain.
        Ok(OF_PROCESS.get_or_init(|| new))
    }

    fn new() -> io::Result<Self> {
        let (nothing, _) = io::pipe()?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes to `context`, which is borrowed for the call.
        match unsafe { libc::syscall(libc::SYS_io_setup, ROOM, &raw mut context) } {
            0 => Ok(Signals { context, nothing }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Adds 1 to the count of an eventfd, unless it is at its maximum: 2⁶⁴ - 1. Does not wait,
    /// whatever the flags of the open file say.
    ///
    /// # Errors
    /// What the kernel says: that it is not open any more, or not an eventfd.
    pub fn signal(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        let mut request = Request {
            opcode: PREAD,
            file: self.nothing.as_fd().as_raw_fd().cast_unsigned(),
            flags: SIGNALS,
            completion: event.as_raw_fd().cast_unsigned(),
            ..Request::default()
        };
        let mut requests = [&raw mut request];
        loop {
            // SAFETY: the kernel reads the list and the request, and writes a key to the request;
            // all are borrowed for the call. The request is to read nothing, to nowhere, and is
            // complete when the call returns: a pipe is not asked what it has before the length is
            // looked at.
            let submitted = unsafe {
                libc::syscall(
                    libc::SYS_io_submit,
                    self.context,
                    1 as libc::c_long,
                    requests.as_mut_ptr(),
                )
            };
            let refused = (submitted != 1).then(io::Error::last_os_error);
            self.take_completions();
            match refused {
                None => return Ok(()),
                // As many others as there is room for are between the two calls.
                Some(full) if full.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                Some(why) => return Err(why),
            }
        }
    }

    /// Returns whether a descriptor is an eventfd, or `None` if the kernel does not tell. Asks
    /// nothing of the file itself, which may be any that a device has sent.
    ///
    /// (An eventfd to be signalled is looked up, and refused if it is none, before the kernel
    /// stamps the request's key with 0; the operation, which does not exist, is refused after that.
    /// So nothing is ever signalled.)
    pub fn is_eventfd(&self, fd: BorrowedFd<'_>) -> Option<bool> {
        let mut request = Request {
            key_and_flags: u64::MAX,
            opcode: NO_OPERATION,
            file: self.nothing.as_fd().as_raw_fd().cast_unsigned(),
            flags: SIGNALS,
            completion: fd.as_raw_fd().cast_unsigned(),
            ..Request::default()
        };
        // `aio_rw_flags`, the other half of the word, is looked at by operations alone.
        let mut requests = [&raw mut request];
        // SAFETY: the kernel reads the list and the request, and writes a key to the request; all
        // are borrowed for the call. Nothing is begun, so nothing goes on after it.
        let submitted = unsafe {
            libc::syscall(
                libc::SYS_io_submit,
                self.context,
                1 as libc::c_long,
                requests.as_mut_ptr(),
            )
        };
        let invalid =
            submitted == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
        invalid.then_some(request.key_and_flags != u64::MAX)
    }

    fn take_completions(&self) {
        // `struct io_event`.
        let mut completions = [[0_u64; 4]; 8];
        let most = completions.len() as libc::c_long;
        // SAFETY: the kernel writes to `completions`, which is borrowed for the call. (At least
        // none are asked for, so there is nothing to wait for, and no time limit is read.)
        unsafe {
            let (into, no_limit) =
                (completions.as_mut_ptr(), core::ptr::null_mut::<libc::timespec>());
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                0 as libc::c_long,
                most,
                into,
                no_limit,
            );
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: nobody else uses the context any more.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
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
        if !reads_eventfds_now() {
            return println!("skipped: the kernel has no read of eventfds that does not wait");
        }
        assert!(would_block(read_now(of_eventfd(&event), &mut count)));
        event.write(3).unwrap();
        assert_eq!(read_now(of_eventfd(&event), &mut count).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(count), 3);
    }

    #[test]
    fn an_eventfd_that_blocks_and_is_full_is_signalled_without_waiting() {
        let signals = match Signals::of_process() {
            Ok(signals) => signals,
            Err(why) => return println!("skipped: no asynchronous requests here: {why}"),
        };
        let event = EventFd::new(0).unwrap();
        let count = || event.read().unwrap();
        signals.signal(of_eventfd(&event)).unwrap();
        signals.signal(of_eventfd(&event)).unwrap();
        assert_eq!(count(), 2);
        event.write(u64::MAX - 1).unwrap();
        signals.signal(of_eventfd(&event)).unwrap();
        signals.signal(of_eventfd(&event)).unwrap();
        assert_eq!(count(), u64::MAX);
        let (pipe, _) = io::pipe().unwrap();
        assert_eq!(signals.signal(pipe.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn an_eventfd_is_told_from_other_files_and_not_signalled() {
        let Ok(signals) = Signals::new() else {
            return println!("skipped: no asynchronous requests here");
        };
        for flags in [0, EFD_NONBLOCK] {
            let event = EventFd::new(flags).unwrap();
            assert_eq!(signals.is_eventfd(of_eventfd(&event)), Some(true));
            assert!(would_block(read_now(of_eventfd(&event), &mut [0; 8])));
        }
        let (pipe, file) = (io::pipe().unwrap().0, std::fs::File::open("/").unwrap());
        assert_eq!(signals.is_eventfd(pipe.as_fd()), Some(false));
        assert_eq!(signals.is_eventfd(file.as_fd()), Some(false));
    }

    #[test]
    fn more_threads_than_there_is_room_for_signal_each_of_their_times() {
        let Ok(signals) = Signals::new() else {
            return println!("skipped: no asynchronous requests here");
        };
        let event = EventFd::new(0).unwrap();
        let (threads, times) = (4 * ROOM as u64, 100);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope
                    .spawn(|| (0..times).for_each(|_| signals.signal(of_eventfd(&event)).unwrap()));
            }
        });
        assert_eq!(event.read().unwrap(), threads * times);
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
