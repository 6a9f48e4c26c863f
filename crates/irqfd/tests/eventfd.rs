//! Real eventfds. Skipped, with the reason, where there are none.
#![cfg(all(target_os = "linux", feature = "std"))]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use doorbell_irqfd::eventfd::{Descriptor, EventError, EventLoop, EventSink, Served, of_eventfd};
use doorbell_irqfd::{Controller, Error, Gsi, Irqfds, Limits, Msi, Notify, Pin, SourceId};
use doorbell_platform::Std;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EFD_SEMAPHORE, EventFd};

type Vm = Irqfds<Std, Arc<Chip>>;
type Events = EventLoop<Std, Arc<Chip>>;

/// A VM and an event loop, or why not.
fn start() -> Option<(Vm, Events)> {
    let tried = EventFd::new(EFD_NONBLOCK)
        .map_err(EventError::from)
        .and_then(|event| Descriptor::eventfd(of_eventfd(&event)));
    match (tried, EventLoop::spawn()) {
        (Ok(_), Ok(events)) => Some((vm(), events)),
        (Err(why), _) => skip(why),
        (_, Err(why)) => skip(why),
    }
}

fn skip<T>(why: impl std::fmt::Display) -> Option<T> {
    println!("skipped: no eventfds here: {why}");
    None
}

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

fn descriptor(event: &EventFd) -> Descriptor {
    Descriptor::eventfd(of_eventfd(event)).unwrap()
}

/// An eventfd that the loop has made.
fn open<C: Controller>(
    events: &EventLoop<Std, C>,
    vm: &Irqfds<Std, C>,
    gsi: Gsi,
) -> Result<(EventFd, Served), EventError> {
    let (event, served) = events.open(vm, gsi)?;
    // SAFETY: its owner gives it away.
    Ok((unsafe { EventFd::from_raw_fd(event.into_raw_fd()) }, served))
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// After so long something hangs for ever.
const HANGS: Duration = Duration::from_secs(60);

/// [`until`] where something may hang for ever, which ends this as `false`.
fn in_time(condition: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > HANGS {
            return false;
        }
        thread::yield_now();
    }
    true
}

fn arrived(vm: &Vm) -> usize {
    vm.controller().seen.lock().unwrap().len()
}

fn would_block<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn an_eventfd_signals_until_it_is_deassigned_and_keeps_what_comes_later() {
    let Some((vm, events)) = start() else { return };
    let (event, served) = open(&events, &vm, MSI).unwrap();
    for n in 1..=3 {
        event.write(1).unwrap();
        until(|| arrived(&vm) == n);
    }
    events.deassign(served).unwrap();
    assert_eq!((events.len(), vm.assigned()), (0, 0));
    event.write(1).unwrap();
    assert_eq!(event.read().unwrap(), 1, "nobody else has read it");
    assert_eq!(arrived(&vm), 3);
    assert_eq!(events.deassign(served), Err(Error::NotAssigned));
}

#[test]
fn an_event_that_was_pending_before_assignment_is_injected() {
    let Some((vm, events)) = start() else { return };
    let event = event();
    event.write(5).unwrap();
    events.assign(&vm, descriptor(&event), EDGE).unwrap();
    until(|| arrived(&vm) == 1);
    assert_eq!(vm.controller().take(), [Seen::Edge(EDGE_PIN)]);
    assert!(would_block(event.read()));
}

#[test]
fn a_level_goes_up_by_one_eventfd_and_comes_back_by_another() {
    let Some((vm, events)) = start() else { return };
    let (event, resample) = (event(), event());
    let sink = Arc::new(EventSink::new(of_eventfd(&resample)).unwrap());
    let served = events.assign_resample(&vm, descriptor(&event), LEVEL, sink).unwrap();
    for _ in 0..3 {
        event.write(1).unwrap();
        until(|| vm.controller().level(PIN) != 0);
        assert!(would_block(resample.read()));
        vm.ack(PIN);
        assert_eq!(vm.controller().level(PIN), 0);
        assert_eq!(resample.read().unwrap(), 1);
    }
    events.deassign(served).unwrap();
}

#[test]
fn the_same_eventfd_is_refused_by_whatever_number_it_comes() {
    let Some((vm, events)) = start() else { return };
    let event = event();
    let served = events.assign(&vm, descriptor(&event), MSI).unwrap();
    for again in [event.try_clone().unwrap(), event.try_clone().unwrap()] {
        let error = events.assign(&vm, descriptor(&again), EDGE).unwrap_err();
        assert!(matches!(error, EventError::Irqfd(Error::Busy)), "{error}");
    }
    assert_eq!((events.len(), vm.assigned()), (1, 1));
    events.deassign(served).unwrap();
    events.assign(&vm, descriptor(&event), EDGE).unwrap();
}

#[test]
fn an_assignment_that_the_vm_refuses_leaves_the_eventfd_free() {
    let Some((vm, events)) = start() else { return };
    let event = event();
    let error = events.assign(&vm, descriptor(&event), UNROUTED).unwrap_err();
    assert!(matches!(error, EventError::Irqfd(Error::UnknownGsi(UNROUTED))), "{error}");
    events.assign(&vm, descriptor(&event), MSI).unwrap();
}

#[test]
fn what_is_not_a_usable_descriptor_is_refused() {
    let Some((vm, events)) = start() else { return };
    // SAFETY: only its number is used, and it is forgotten before it could be closed.
    let closed = unsafe { EventFd::from_raw_fd(RawFd::MAX) };
    assert!(matches!(Descriptor::eventfd(of_eventfd(&closed)), Err(EventError::BadDescriptor)));
    assert!(matches!(EventSink::new(of_eventfd(&closed)), Err(EventError::BadDescriptor)));
    mem::forget(closed);

    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/proc/self/exe")
        .unwrap();
    // SAFETY: duplicated by those who are given it, and forgotten here, so that only `file` closes
    // it.
    let posing = unsafe { EventFd::from_raw_fd(file.as_raw_fd()) };
    assert!(matches!(Descriptor::eventfd(of_eventfd(&posing)), Err(EventError::BadDescriptor)));
    mem::forget(posing);
    let error = events.assign(&vm, Descriptor::stream(file.into()).unwrap(), MSI).unwrap_err();
    assert!(
        matches!(error, EventError::BadDescriptor),
        "epoll does not watch regular files: {error}"
    );
    until(|| vm.assigned() == 0);
}

#[test]
fn an_eventfd_that_blocks_is_served_and_signalled_without_a_wait() {
    let Some((vm, events)) = start() else { return };
    if !doorbell_platform::fd::reads_eventfds_now() {
        let _: Option<()> = skip("the kernel has no read of eventfds that does not wait");
        return;
    }
    let (event, resample) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    resample.write(u64::MAX - 1).unwrap();
    let sink = Arc::new(EventSink::new(of_eventfd(&resample)).unwrap());
    let served = events.assign_resample(&vm, descriptor(&event), LEVEL, sink).unwrap();
    for _ in 0..3 {
        event.write(1).unwrap();
        until(|| vm.controller().level(PIN) != 0);
        // A `write` would wait here for a reader, from the second time on.
        vm.ack(PIN);
    }
    assert_eq!(resample.read().unwrap(), u64::MAX);
    // Serving the eventfd when the device has taken its event back waits for nothing.
    assert!(!vm.controller().seen.lock().unwrap().is_empty());
    events.deassign(served).unwrap();
    let again = events.assign(&vm, descriptor(&event), MSI).unwrap();
    events.deassign(again).unwrap();
}

#[test]
fn an_eventfd_that_is_a_semaphore_is_one_event_a_read() {
    let Some((vm, events)) = start() else { return };
    let event = EventFd::new(EFD_NONBLOCK | EFD_SEMAPHORE).unwrap();
    let served = events.assign(&vm, descriptor(&event), MSI).unwrap();
    for n in 1..=3 {
        event.write(1).unwrap();
        until(|| arrived(&vm) == n);
    }
    assert!(would_block(event.read()));
    // The device sets the count; a loop that reads until there is none is the device's to hold.
    event.write(1000).unwrap();
    until(|| arrived(&vm) == 4);
    events.deassign(served).unwrap();
    assert_eq!((arrived(&vm), count(&event)), (4, 999));
}

/// Whether there is something to read from a descriptor now.
fn readable(fd: impl AsFd) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel reads and writes `poll`, which is borrowed for the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

#[test]
fn a_loop_without_a_thread_is_served_by_the_host_a_part_at_a_time() {
    let Some((vm, _)) = start() else { return };
    let events = Events::unthreaded().unwrap();
    assert_eq!(events.dispatch().unwrap(), 0);
    let opened: Vec<_> = (0..300).map(|_| open(&events, &vm, MSI).unwrap()).collect();
    assert!(!readable(&events));
    opened.iter().for_each(|(event, _)| event.write(1).unwrap());
    assert_eq!(arrived(&vm), 0, "nobody serves them yet");
    assert!(readable(&events));
    assert_eq!(events.dispatch().unwrap(), 256);
    assert!(readable(&events), "there are more");
    assert_eq!(events.dispatch().unwrap(), 44);
    assert!(!readable(&events));
    assert_eq!(arrived(&vm), 300);

    // What has been signalled and not been served is still the device's after that.
    let (event, served) = &opened[7];
    event.write(1).unwrap();
    events.deassign(*served).unwrap();
    assert_eq!((events.dispatch().unwrap(), count(event)), (0, 1));
    let (other, _) = &opened[8];
    other.write(1).unwrap();
    drop(events);
    assert_eq!((vm.assigned(), arrived(&vm), count(other)), (0, 300, 1));
}

#[test]
fn a_host_that_serves_a_loop_by_several_threads_delivers_each_event_once() {
    let Some((vm, _)) = start() else { return };
    let events = Events::unthreaded().unwrap();
    let opened: Vec<_> = (0..8).map(|_| open(&events, &vm, MSI).unwrap().0).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    events.dispatch().unwrap();
                }
            });
        }
        for n in 1..=100 {
            opened.iter().for_each(|event| event.write(1).unwrap());
            until(|| arrived(&vm) == 8 * n);
        }
        over.store(true, SeqCst);
    });
    assert_eq!(arrived(&vm), 800);
}

#[test]
fn a_counter_at_its_maximum_is_one_event_and_does_no_harm() {
    let Some((vm, events)) = start() else { return };
    let (event, resample) = (event(), event());
    event.write(u64::MAX - 1).unwrap();
    resample.write(u64::MAX - 1).unwrap();
    assert!(would_block(event.write(1)));
    let sink = Arc::new(EventSink::new(of_eventfd(&resample)).unwrap());
    events.assign_resample(&vm, descriptor(&event), LEVEL, sink).unwrap();
    until(|| vm.controller().level(PIN) != 0);
    vm.ack(PIN);
    assert_eq!(resample.read().unwrap(), u64::MAX, "one more, which leaves it at its maximum");
    event.write(1).unwrap();
    until(|| vm.controller().level(PIN) != 0);
}

#[test]
fn a_device_that_makes_its_resamplefd_blocking_and_fills_it_holds_up_nobody_who_acknowledges() {
    let Some((vm, events)) = start() else { return };
    let [hostile, other] = [(); 2].map(|()| {
        let (event, resample) = (event(), event());
        let sink = Arc::new(EventSink::new(of_eventfd(&resample)).unwrap());
        events.assign_resample(&vm, descriptor(&event), LEVEL, sink).unwrap();
        (event, resample)
    });
    // SAFETY: it is open; the call touches nothing else.
    assert_eq!(unsafe { libc::fcntl(hostile.1.as_raw_fd(), libc::F_SETFL, 0) }, 0);
    hostile.1.write(u64::MAX - 1).unwrap();
    for _ in 0..3 {
        other.0.write(1).unwrap();
        until(|| vm.controller().level(PIN) != 0);
        let vcpu = thread::spawn({
            let vm = vm.clone();
            move || vm.ack(PIN)
        });
        assert!(in_time(|| vcpu.is_finished()), "the virtual CPU hangs in a write");
        vcpu.join().unwrap();
        assert_eq!((vm.controller().level(PIN), other.1.read().unwrap()), (0, 1));
    }
    assert_eq!(hostile.1.read().unwrap(), u64::MAX);
}

#[test]
fn the_owner_may_close_its_eventfd() {
    let Some((vm, events)) = start() else { return };
    let owner = event();
    let device = owner.try_clone().unwrap();
    let served = events.assign(&vm, descriptor(&owner), MSI).unwrap();
    drop(owner);
    device.write(1).unwrap();
    until(|| arrived(&vm) == 1);
    drop(device);
    events.deassign(served).unwrap();
}

/// A stream whose reads do not wait, and its device.
fn stream() -> (Descriptor, io::PipeWriter) {
    let (reader, device) = io::pipe().unwrap();
    let reader = OwnedFd::from(reader);
    let blocking = Descriptor::stream(reader.try_clone().unwrap());
    assert!(matches!(blocking, Err(EventError::Blocking)));
    // SAFETY: `reader` is open; the call touches nothing else.
    assert_eq!(unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    (Descriptor::stream(reader).unwrap(), device)
}

#[test]
fn a_hang_up_detaches_and_lowers_the_line() {
    let Some((vm, events)) = start() else { return };
    let (reader, mut device) = stream();
    let sink = Count::new();
    events.assign_resample(&vm, reader, LEVEL, sink.clone()).unwrap();
    device.write_all(&[1; 2000]).unwrap();
    until(|| vm.controller().level(PIN) != 0);
    device.write_all(&[1]).unwrap();
    drop(device);
    until(|| events.is_empty() && vm.assigned() == 0 && Arc::strong_count(&sink) == 1);
    assert_eq!(vm.controller().level(PIN), 0);
}

/// What hangs on an assignment. Takes note, when it goes, of whether the irqfd is assigned still.
struct Goes(Irqfds<Std, Arc<Chip>>, Arc<Mutex<Vec<u32>>>);

impl Drop for Goes {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0.assigned());
    }
}

#[test]
fn what_is_attached_goes_before_the_irqfd_however_that_ends() {
    let Some((vm, events)) = start() else { return };
    let gone = Arc::new(Mutex::new(Vec::new()));
    let goes = || Goes(vm.clone(), Arc::clone(&gone));
    let assigned = || {
        let (reader, device) = stream();
        (events.assign(&vm, reader, MSI).unwrap(), device)
    };
    let all = || gone.lock().unwrap().clone();
    // A device hangs up.
    let (served, device) = assigned();
    events.attach(served, goes()).unwrap();
    events.attach(served, goes()).unwrap();
    assert_eq!(all(), []);
    drop(device);
    until(|| vm.assigned() == 0);
    assert_eq!(all(), [1, 1]);
    assert_eq!(events.attach(served, goes()), Err(Error::NotAssigned));
    assert_eq!(all(), [1, 1, 0]);
    // The host deassigns one, then all.
    let ((one, _one), (two, _two), (three, _three)) = (assigned(), assigned(), assigned());
    [one, two, three].into_iter().for_each(|served| events.attach(served, goes()).unwrap());
    events.deassign(one).unwrap();
    events.deassign_all([two, three]);
    assert_eq!(all(), [1, 1, 0, 3, 2, 2]);
    // The loop goes.
    let (served, _device) = assigned();
    events.attach(served, goes()).unwrap();
    drop(events);
    assert_eq!(all(), [1, 1, 0, 3, 2, 2, 1]);
}

/// What the kernel says is in an eventfd.
fn count(event: &EventFd) -> u64 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", event.as_raw_fd())).unwrap();
    let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:")).unwrap();
    u64::from_str_radix(count.trim(), 16).unwrap()
}

#[test]
fn an_event_that_found_no_route_stays_in_its_descriptor_and_nothing_is_written_to_the_eventfd() {
    let Some((vm, events)) = start() else { return };
    let (event, elsewhere) = (event(), EventLoop::spawn().unwrap());
    let kept = descriptor(&event);
    let served = events.assign(&vm, kept.clone(), MSI).unwrap();
    let _ = vm.reroute(table(&[])).unwrap();
    event.write(7).unwrap();
    until(|| count(&event) == 0);
    events.deassign(served).unwrap();
    assert!(would_block(event.read()), "it is shared with the device, which could have filled it");

    let _ = vm.reroute(table(&standard())).unwrap();
    vm.controller().take();
    // Of whatever loop, and by another descriptor of the eventfd.
    let served = elsewhere.assign(&vm, descriptor(&event), EDGE).unwrap();
    assert_eq!(vm.controller().take(), [Seen::Edge(EDGE_PIN)]);
    assert!(!kept.take_pending());
    elsewhere.deassign(served).unwrap();
    assert!(!kept.take_pending());
}

#[test]
fn an_eventfd_is_served_by_one_loop_and_one_vm_of_the_process() {
    let Some((vm, events)) = start() else { return };
    let (event, other_vm, other) = (event(), common::vm::<Std>(), EventLoop::spawn().unwrap());
    if !descriptor(&event).is_identified() {
        println!("skipped: the kernel does not say which eventfd it is");
        return;
    }
    let served = events.assign(&vm, descriptor(&event), MSI).unwrap();
    for (events, vm) in [(&other, &vm), (&other, &other_vm), (&events, &other_vm)] {
        let error = events.assign(vm, descriptor(&event.try_clone().unwrap()), EDGE).unwrap_err();
        assert!(matches!(error, EventError::Irqfd(Error::Busy)), "{error}");
        let error =
            events.assign_resample(vm, descriptor(&event), LEVEL, Count::new()).unwrap_err();
        assert!(matches!(error, EventError::Irqfd(Error::Busy)), "{error}");
    }
    events.deassign(served).unwrap();
    let _ = other.assign(&other_vm, descriptor(&event), MSI).unwrap();
    drop(other);
    // As in a migration within the host: the one lets go, the other takes it.
    events.assign(&vm, descriptor(&event), MSI).unwrap();
    event.write(1).unwrap();
    until(|| arrived(&vm) == 1);
    assert_eq!(arrived(&other_vm), 0);
}

/// A controller that waits in each edge until it is let go on, and panics with each message if it
/// is told to.
struct Gate {
    chip: Chip,
    entered: mpsc::Sender<()>,
    go: Mutex<mpsc::Receiver<()>>,
    panics: AtomicBool,
}

impl Controller for Gate {
    type Delivery = ();

    fn pins(&self, chip: u16) -> u32 {
        self.chip.pins(chip)
    }
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) {
        self.chip.set_irq(pin, source, level);
    }
    fn edge(&self, pin: Pin) {
        self.entered.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        self.chip.edge(pin);
    }
    fn msi(&self, msi: Msi) {
        assert!(!self.panics.load(SeqCst), "a controller that is wrong");
        self.chip.msi(msi);
    }
}

fn gate() -> (Irqfds<Std, Arc<Gate>>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let ((entered, entries), (go, gone)) = (mpsc::channel(), mpsc::channel());
    let gate = Gate {
        chip: Chip::default(),
        entered,
        go: Mutex::new(gone),
        panics: AtomicBool::new(false),
    };
    let vm = Irqfds::new(Arc::new(gate), Limits { gsis: 64, ..Limits::default() });
    let _ = vm.reroute(table(&standard())).unwrap();
    (vm, entries, go)
}

#[test]
fn a_device_that_makes_its_eventfd_blocking_and_takes_its_event_back_holds_up_nobody() {
    if start().is_none() {
        return;
    }
    let (vm, entries, go) = gate();
    let events = EventLoop::spawn().unwrap();
    let [first, bad, other] = [(); 3].map(|()| event());
    events.assign(&vm, descriptor(&first), EDGE).unwrap();
    events.assign(&vm, descriptor(&bad), MSI).unwrap();
    events.assign(&vm, descriptor(&other), MSI).unwrap();
    // The loop is kept while both become ready, and once more between the poll and the read of the
    // second.
    first.write(1).unwrap();
    entries.recv().unwrap();
    first.write(1).unwrap();
    bad.write(1).unwrap();
    go.send(()).unwrap();
    entries.recv().unwrap();
    // SAFETY: `bad` is open; the call touches nothing else.
    assert_eq!(unsafe { libc::fcntl(bad.as_raw_fd(), libc::F_SETFL, 0) }, 0);
    assert_eq!(bad.read().unwrap(), 1);
    go.send(()).unwrap();
    other.write(1).unwrap();
    if !in_time(|| vm.controller().chip.seen.lock().unwrap().last() == Some(&Seen::Msi(MESSAGE))) {
        // Its drop would wait for the thread.
        mem::forget(events);
        panic!("the loop hangs in a read");
    }
    assert_eq!(
        vm.controller().chip.take(),
        [Seen::Edge(EDGE_PIN), Seen::Edge(EDGE_PIN), Seen::Msi(MESSAGE)]
    );
}

#[test]
fn an_event_that_was_read_is_delivered_before_its_deassignment_has_ended() {
    if start().is_none() {
        return;
    }
    let (vm, entries, go) = gate();
    let (events, event) = (EventLoop::spawn().unwrap(), event());
    let served = events.assign(&vm, descriptor(&event), EDGE).unwrap();
    event.write(1).unwrap();
    entries.recv().unwrap();
    thread::scope(|scope| {
        let deassigns = scope.spawn(|| events.deassign(served));
        until(|| events.is_empty());
        go.send(()).unwrap();
        deassigns.join().unwrap().unwrap();
        assert_eq!(vm.controller().chip.take(), [Seen::Edge(EDGE_PIN)]);
    });
    assert!(would_block(event.read()));
}

#[test]
fn a_controller_that_panics_is_told_and_everybody_is_served_on() {
    if start().is_none() {
        return;
    }
    let (vm, _entries, _go) = gate();
    let (told, panics) = mpsc::channel();
    let events = EventLoop::spawn().unwrap().reporting(move |served, why| {
        told.send((served, why.downcast_ref::<&str>().map(ToString::to_string))).unwrap();
        panic!("and so does who is told");
    });
    let (event, served) = open(&events, &vm, MSI).unwrap();
    vm.controller().panics.store(true, SeqCst);
    let why = Some("a controller that is wrong".to_string());
    for _ in 0..2 {
        event.write(1).unwrap();
        assert_eq!(panics.recv_timeout(HANGS), Ok((served, why.clone())));
    }
    // One that waits already is injected by who assigns it.
    let waits = EventFd::new(EFD_NONBLOCK).unwrap();
    waits.write(1).unwrap();
    let other = events.assign(&vm, descriptor(&waits), MSI).unwrap();
    assert_eq!(panics.recv_timeout(HANGS), Ok((other, why)));

    vm.controller().panics.store(false, SeqCst);
    let (opened, _) = open(&events, &vm, MSI).unwrap();
    for (n, event) in [&event, &waits, &opened].into_iter().enumerate() {
        event.write(1).unwrap();
        assert!(in_time(|| vm.controller().chip.seen.lock().unwrap().len() == n + 1));
    }
    events.deassign_all([served, other]);
    assert_eq!((events.len(), vm.assigned()), (1, 1));
}

#[test]
fn a_vm_that_was_shut_down_is_served_no_more() {
    let Some((vm, events)) = start() else { return };
    let (event, _) = open(&events, &vm, MSI).unwrap();
    vm.close().wait();
    event.write(1).unwrap();
    until(|| events.is_empty());
    until(|| event.read().is_ok());
    let error = events.assign(&vm, descriptor(&event), MSI).unwrap_err();
    assert!(matches!(error, EventError::Irqfd(Error::Closed)), "{error}");
}

#[test]
fn dropping_the_loop_deassigns_what_it_serves() {
    let Some((vm, events)) = start() else { return };
    let sink = Count::new();
    let keep: Vec<_> = (0..50)
        .map(|n| {
            let event = event();
            match n % 2 {
                0 => events.assign(&vm, descriptor(&event), MSI).unwrap(),
                _ => events.assign_resample(&vm, descriptor(&event), LEVEL, sink.clone()).unwrap(),
            };
            event
        })
        .collect();
    keep[1].write(1).unwrap();
    until(|| vm.controller().level(PIN) != 0);
    drop(events);
    assert_eq!(vm.assigned(), 0);
    until(|| Arc::strong_count(&sink) == 1);
    assert_eq!(vm.controller().level(PIN), 0);
}

#[test]
fn hundreds_are_deassigned_for_one_grace_period() {
    let Some((vm, events)) = start() else { return };
    let sink: Arc<dyn Notify> = Count::new();
    let served: Vec<_> = (0..400)
        .map(|_| events.assign_resample(&vm, descriptor(&event()), LEVEL, sink.clone()).unwrap())
        .collect();
    events.deassign_all(served.iter().copied().chain(served.iter().copied()));
    assert_eq!((events.len(), vm.assigned(), Arc::strong_count(&sink)), (0, 0, 1));
}

#[test]
fn no_event_is_lost_between_assignments() {
    let Some((vm, events)) = start() else { return };
    let event = event();
    thread::scope(|scope| {
        let device = scope.spawn(|| {
            for _ in 0..500 {
                let before = arrived(&vm);
                event.write(1).unwrap();
                until(|| arrived(&vm) > before);
            }
        });
        while !device.is_finished() {
            let served = events.assign(&vm, descriptor(&event), MSI).unwrap();
            events.deassign(served).unwrap();
        }
    });
}

#[test]
fn an_eventfd_is_not_its_own_sink() {
    let Some((vm, events)) = start() else { return };
    let (event, other) = (event(), event());
    if !descriptor(&event).is_identified() {
        println!("skipped: the kernel does not say which eventfd it is");
        return;
    }
    let sink = Arc::new(EventSink::new(of_eventfd(&event.try_clone().unwrap())).unwrap());
    let again = Arc::new(EventSink::new(of_eventfd(&event)).unwrap());
    for sink in [&sink, &again] {
        let refused = events.assign_resample(&vm, descriptor(&event), LEVEL, sink.clone());
        assert!(matches!(refused, Err(EventError::OwnSink)));
    }
    let served = events.assign_resample(&vm, descriptor(&other), LEVEL, sink).unwrap();
    assert!(matches!(EventSink::new(of_eventfd(&other)), Err(EventError::OwnSink)));
    events.deassign(served).unwrap();
    drop((EventSink::new(of_eventfd(&other)).unwrap(), again));
    events.assign(&vm, descriptor(&event), MSI).unwrap();
}

#[test]
fn what_is_pending_of_a_served_descriptor_is_read_without_being_taken_and_pended_again_elsewhere() {
    let Ok(events) = Events::unthreaded() else { return };
    let vm: Vm = vm();
    let (mut device, served) =
        events.open(&vm, MSI).map(|(fd, at)| (fs::File::from(fd), at)).unwrap();
    let _ = vm.reroute(table(&[])).unwrap();
    assert_eq!(events.is_pending(served), Ok(false));
    device.write_all(&1_u64.to_ne_bytes()).unwrap();
    events.dispatch().unwrap();
    assert_eq!([(); 2].map(|()| events.is_pending(served)), [Ok(true); 2]);
    vm.controller().take();
    let other: Vm = common::vm();
    let event = event();
    let restored = descriptor(&event);
    restored.pend();
    assert!(restored.is_pending());
    events.assign(&other, restored.clone(), MSI).unwrap();
    assert_eq!(other.controller().take(), [Seen::Msi(MESSAGE)]);
    assert!(!restored.is_pending());
    let _ = vm.reroute(table(&standard())).unwrap();
    assert_eq!(
        (vm.controller().take(), events.is_pending(served)),
        (vec![Seen::Msi(MESSAGE)], Ok(false))
    );
    events.deassign(served).unwrap();
    assert_eq!(events.is_pending(served), Err(Error::NotAssigned));
}
