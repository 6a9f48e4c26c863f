//! Eventfds that KVM takes, and those that it does not: with a KVM that is written down in
//! `kvm/fake.rs`, and with the kernel's where there is one.
#![cfg(all(target_os = "linux", feature = "std"))]

mod common;
#[path = "kvm/fake.rs"]
mod fake;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
#[path = "kvm/real.rs"]
mod real;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use doorbell_irqfd::eventfd::{Assigned, Descriptor, EventError, EventLoop, EventSink};
use doorbell_irqfd::eventfd::{Irqchip, Offload};
use doorbell_irqfd::{
    Controller, Delivery, Error, Gsi, Irqfds, Limits, Msi, Outcome, Pin, Route, Routes,
    RoutingTable, SourceId,
};
use doorbell_platform::{Std, fd};
use fake::{Call, FakeKvm};

type Vm = Irqfds<Std, Arc<Chip>>;

const SPLIT: Irqchip = Irqchip::Split { pins: 24 };
const MOVED: Gsi = Gsi(25);
const MOVED_MESSAGE: Msi = Msi::new(0xfee0_0000, 0x51);

struct Board {
    vm: Vm,
    events: Arc<EventLoop<Std, Arc<Chip>>>,
    kvm: Arc<FakeKvm>,
    offload: Offload<Std, Arc<Chip>, Arc<FakeKvm>>,
}

impl Board {
    /// A board whose loop is dispatched by [`arrived`](Board::arrived); `None` where there are no
    /// eventfds, or nobody tells them apart.
    fn new(irqchip: Irqchip) -> Option<Board> {
        let event = fd::eventfd().and_then(|event| Ok((event.try_clone()?, event)));
        if !event.is_ok_and(|(one, other)| fd::compare_files(one.as_fd(), other.as_fd()).is_some())
        {
            println!("skipped: no eventfds here, or the kernel does not compare them");
            return None;
        }
        let (vm, kvm) = (vm(), Arc::new(FakeKvm::new(irqchip)));
        let events = Arc::new(EventLoop::unthreaded().unwrap());
        let offload = Offload::new(&vm, &events, Arc::clone(&kvm), irqchip).unwrap();
        Some(Board { vm, events, kvm, offload })
    }

    fn assign(&self, gsi: Gsi) -> (OwnedFd, Assigned) {
        let event = fd::eventfd().unwrap();
        let assigned = self.offload.assign(descriptor(&event), gsi).unwrap();
        (event, assigned)
    }

    fn reroute(&self, table: RoutingTable) {
        self.vm.reroute(table).unwrap().follow(&self.offload);
    }

    /// Routes `MOVED` beside the standard ones.
    fn route(&self, routes: &[Route]) {
        let moved = routes.iter().map(|route| (MOVED, *route));
        self.reroute(table(&[standard(), moved.collect()].concat()));
    }

    fn is_offloaded(&self, assigned: Assigned) -> bool {
        self.offload.is_offloaded(assigned).unwrap()
    }

    /// What KVM has delivered, and what the loop has.
    fn arrived(&self) -> (Vec<Route>, Vec<Seen>) {
        self.events.dispatch().unwrap();
        let mut by_loop = self.vm.controller().take();
        by_loop.retain(|seen| !is_lowering(seen));
        (std::mem::take(&mut self.kvm.state().delivered), by_loop)
    }
}

/// Whether a level is lowered for resampling irqfds, as it is on each pin that has changed hands.
fn is_lowering(seen: &Seen) -> bool {
    matches!(seen, Seen::Level(_, SourceId::RESAMPLE, false))
}

fn descriptor(event: &OwnedFd) -> Descriptor {
    Descriptor::eventfd(event).unwrap()
}

/// Takes the count out of an eventfd.
fn count(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match fd::read_now(event.as_fd(), &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

fn is_busy<T>(result: Result<T, EventError>) -> bool {
    matches!(result, Err(EventError::Irqfd(Error::Busy)))
}

#[test]
fn where_the_irqchip_is_and_the_kind_of_route_decide_who_serves_an_eventfd() {
    for (irqchip, message, pin, resampling) in [
        (Irqchip::User, false, false, false),
        (SPLIT, true, false, false),
        (Irqchip::Kernel, true, true, true),
    ] {
        let Some(board) = Board::new(irqchip) else { return };
        // One of the GSIs that a split irqchip reserves.
        let reserved = (Gsi(7), Route::Msi(Msi::new(0xfee0_0000, 0x61)));
        let low = table(&[standard(), vec![reserved]].concat());
        board.reroute(low);
        assert_eq!(board.is_offloaded(board.assign(MSI).1), message, "{irqchip:?}");
        assert_eq!(board.is_offloaded(board.assign(EDGE).1), pin, "{irqchip:?}");
        let (event, resample) = (fd::eventfd().unwrap(), fd::eventfd().unwrap());
        let level = board.offload.assign_resample(descriptor(&event), LEVEL, &resample).unwrap();
        assert_eq!(board.is_offloaded(level), resampling, "{irqchip:?}");
        assert_eq!(board.is_offloaded(board.assign(Gsi(7)).1), irqchip == Irqchip::Kernel);

        // What is no eventfd is no affair of KVM's.
        let (reader, _writer) = std::io::pipe().unwrap();
        // SAFETY: the descriptor is open.
        unsafe {
            libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&reader), libc::F_SETFL, libc::O_NONBLOCK)
        };
        let stream = Descriptor::stream(reader.into()).unwrap();
        let stream = board.offload.assign(stream, MSI).unwrap();
        assert!(!board.is_offloaded(stream));
        assert!(board.offload.take_refusal().is_none(), "KVM is asked for nothing that it refuses");
        assert_eq!(board.vm.assigned(), 5);
    }
}

#[test]
fn each_event_is_delivered_once_by_whoever_has_it_and_none_after_deassign() {
    let Some(board) = Board::new(SPLIT) else { return };
    let message = [Route::Msi(MESSAGE)];
    for (gsi, by_kvm, by_loop) in
        [(MSI, &message[..], &[][..]), (EDGE, &[], &[Seen::Edge(EDGE_PIN)])]
    {
        let (event, assigned) = board.assign(gsi);
        for _ in 0..3 {
            board.kvm.signal(&event);
            assert_eq!(board.arrived(), (by_kvm.to_vec(), by_loop.to_vec()));
        }
        board.offload.deassign(assigned).unwrap();
        board.kvm.signal(&event);
        assert_eq!(board.arrived(), (vec![], vec![]));
        assert_eq!(count(&event), 1, "nobody else has read it");
        let gone = board.offload.deassign(assigned);
        assert!(matches!(gone, Err(EventError::Irqfd(Error::NotAssigned))));
    }
    assert_eq!((board.vm.assigned(), board.events.len(), board.kvm.state().irqfds()), (0, 0, 0));
}

#[test]
fn what_is_in_an_eventfd_or_pending_is_delivered_once_when_it_is_assigned() {
    let Some(board) = Board::new(SPLIT) else { return };
    let event = fd::eventfd().unwrap();
    board.kvm.signal(&event);
    let assigned = board.offload.assign(descriptor(&event), MSI).unwrap();
    assert_eq!(board.arrived(), (vec![Route::Msi(MESSAGE)], vec![]));
    assert_eq!(count(&event), 0, "the next who reads it would find the event again");
    board.offload.deassign(assigned).unwrap();

    let kept = descriptor(&event);
    for (gsi, seen) in [(MSI, Seen::Msi(MESSAGE)), (EDGE, Seen::Edge(EDGE_PIN))] {
        kept.pend();
        let assigned = board.offload.assign(kept.clone(), gsi).unwrap();
        assert_eq!(board.arrived(), (vec![], vec![seen]));
        assert!(!kept.is_pending());
        board.offload.deassign(assigned).unwrap();
    }

    // By the loop at once, without a dispatch.
    board.kvm.signal(&event);
    board.offload.assign(descriptor(&event), EDGE).unwrap();
    assert_eq!(board.vm.controller().take(), [Seen::Edge(EDGE_PIN)]);
}

#[test]
fn an_eventfd_that_is_served_or_offloaded_is_refused_a_second_time() {
    let Some(board) = Board::new(SPLIT) else { return };
    let (offloaded, assigned) = board.assign(MSI);
    let _is_known_as_long_as_this_is = descriptor(&offloaded);
    assert!(is_busy(board.offload.assign(descriptor(&offloaded), MSI)));
    assert!(is_busy(board.events.assign(&board.vm, descriptor(&offloaded), MSI)));
    assert!(matches!(EventSink::new(&offloaded), Err(EventError::OwnSink)));

    let served = fd::eventfd().unwrap();
    let by_loop = board.events.assign(&board.vm, descriptor(&served), MSI).unwrap();
    assert!(is_busy(board.offload.assign(descriptor(&served), MSI)));
    assert_eq!(
        (board.kvm.state().irqfds(), board.vm.assigned()),
        (1, 2),
        "others are as they were"
    );

    // Each is the other's when it was deassigned.
    board.offload.deassign(assigned).unwrap();
    board.events.deassign(by_loop).unwrap();
    board.events.assign(&board.vm, descriptor(&offloaded), MSI).unwrap();
    board.offload.assign(descriptor(&served), MSI).unwrap();
}

#[test]
fn an_eventfd_that_somebody_has_given_to_kvm_is_refused_and_free_later() {
    use doorbell_irqfd::eventfd::KvmVm;
    let Some(board) = Board::new(SPLIT) else { return };
    let event = fd::eventfd().unwrap();
    board.kvm.register_irqfd(event.as_fd(), MSI, None).unwrap();
    assert!(is_busy(board.offload.assign(descriptor(&event), MSI)));
    assert_eq!((board.vm.assigned(), board.events.len()), (0, 0));
    board.kvm.unregister_irqfd(event.as_fd(), MSI).unwrap();
    let assigned = board.offload.assign(descriptor(&event), MSI).unwrap();
    assert!(board.is_offloaded(assigned));
}

#[test]
fn an_eventfd_moves_with_its_route_and_what_it_is_signalled_meanwhile_comes_once() {
    let Some(board) = Board::new(SPLIT) else { return };
    board.route(&[Route::Msi(MESSAGE)]);
    let (event, assigned) = board.assign(MOVED);
    let edge = Pin::new(1, 3);
    for (routes, offloaded, by_kvm, by_loop) in [
        (&[Route::Pin(edge)][..], false, vec![], {
            let level = |level| Seen::Level(edge, SourceId::IRQFD, level);
            vec![level(true), level(false)]
        }),
        (&[Route::Msi(MOVED_MESSAGE)], true, vec![Route::Msi(MOVED_MESSAGE)], vec![]),
        (&[Route::Msi(MESSAGE)], true, vec![Route::Msi(MESSAGE)], vec![]),
        (&[Route::Edge(edge)], false, vec![], vec![Seen::Edge(edge)]),
        (&[], false, vec![], vec![]),
        (&[Route::Msi(MESSAGE)], true, vec![Route::Msi(MESSAGE)], vec![Seen::Msi(MESSAGE)]),
    ] {
        board.route(routes);
        assert_eq!(board.is_offloaded(assigned), offloaded, "{routes:?}");
        board.kvm.signal(&event);
        // What came while there was no route is delivered with the last.
        assert_eq!(board.arrived(), (by_kvm, by_loop), "{routes:?}");
        assert_eq!(count(&event), 0);
    }
    assert_eq!((board.kvm.state().lost, board.vm.assigned()), (0, 1));
    assert!(board.offload.take_refusal().is_none());
}

/// After so long something hangs for ever.
const HANGS: Duration = Duration::from_secs(60);

#[test]
fn no_event_is_lost_or_comes_twice_while_its_route_changes_all_the_time() {
    const EVENTS: usize = 3_000;
    let Some(board) = Board::new(SPLIT) else { return };
    board.route(&[Route::Msi(MESSAGE)]);
    let (event, _) = board.assign(MOVED);
    let arrived = || {
        board.events.dispatch().unwrap();
        board.kvm.state().delivered.len() + board.vm.controller().seen.lock().unwrap().len()
    };
    let done = AtomicBool::new(false);
    let (changes, lost) = thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let routes = [
                &[Route::Edge(EDGE_PIN)][..],
                &[Route::Msi(MESSAGE)],
                &[],
                &[Route::Msi(MOVED_MESSAGE)],
                &[Route::Msi(MESSAGE)],
            ];
            let mut changes = 0;
            for routes in routes.into_iter().cycle() {
                if done.load(SeqCst) {
                    return changes;
                }
                board.route(routes);
                changes += 1;
            }
            changes
        });
        let mut lost = None;
        for n in 1..=EVENTS {
            board.kvm.signal(&event);
            let begun = Instant::now();
            while arrived() < n {
                if begun.elapsed() > HANGS {
                    lost = Some(n);
                    break;
                }
                thread::yield_now();
            }
            if lost.is_some() {
                break;
            }
        }
        done.store(true, SeqCst);
        (changes.join().unwrap(), lost)
    });
    assert_eq!(lost, None);
    // Whatever was left to be delivered twice would be by now.
    board.route(&[Route::Edge(EDGE_PIN)]);
    println!("{EVENTS} events, {changes} changes of their route");
    assert_eq!((arrived(), board.kvm.state().lost, count(&event)), (EVENTS, 0, 0));
}

#[test]
fn a_table_that_kvm_refuses_is_served_by_the_loop_until_kvm_takes_one() {
    let Some(board) = Board::new(SPLIT) else { return };
    board.route(&[Route::Msi(MESSAGE)]);
    let ((event, moved), (other, stays)) = (board.assign(MOVED), board.assign(MSI));
    board.kvm.state().refuses.insert(Call::Routes);
    board.route(&[Route::Msi(MOVED_MESSAGE)]);
    assert_eq!((board.is_offloaded(moved), board.is_offloaded(stays)), (false, true));
    assert!(matches!(board.offload.take_refusal(), Some(EventError::Io(_))));
    let calls = board.kvm.state().calls.len();
    let [a, b] = [41, 42].map(|gsi| (Gsi(gsi), Route::Msi(MESSAGE)));
    board.reroute(table(&[standard(), vec![(MOVED, Route::Msi(MOVED_MESSAGE)), a, b]].concat()));
    assert_eq!(board.kvm.state().calls[calls..], [Call::Routes], "once for both");
    board.kvm.signal(&event);
    board.kvm.signal(&other);
    assert_eq!(board.arrived(), (vec![Route::Msi(MESSAGE)], vec![Seen::Msi(MOVED_MESSAGE)]));

    assert!(board.offload.take_refusal().is_some());
    board.kvm.state().refuses.clear();
    let another = (Gsi(40), Route::Edge(EDGE_PIN));
    let moved_to = (MOVED, Route::Msi(MOVED_MESSAGE));
    board.reroute(table(&[standard(), vec![moved_to, another]].concat()));
    assert!(board.is_offloaded(moved) && board.offload.take_refusal().is_none());
    board.kvm.signal(&event);
    assert_eq!(board.arrived(), (vec![Route::Msi(MOVED_MESSAGE)], vec![]));
}

#[test]
fn an_eventfd_that_kvm_refuses_is_served_by_the_loop_until_kvm_takes_it() {
    let Some(board) = Board::new(SPLIT) else { return };
    board.kvm.state().refuses.insert(Call::Register);
    let (event, assigned) = board.assign(MSI);
    assert!(matches!(board.offload.take_refusal(), Some(EventError::Io(_))));
    assert!(!board.is_offloaded(assigned));
    board.kvm.signal(&event);
    assert_eq!(board.arrived(), (vec![], vec![Seen::Msi(MESSAGE)]));
    board.kvm.state().refuses.clear();
    board.route(&[Route::Edge(EDGE_PIN)]);
    assert!(board.is_offloaded(assigned));

    // One that KVM does not give back stays KVM's.
    board.kvm.state().refuses.insert(Call::Unregister);
    assert!(matches!(board.offload.deassign(assigned), Err(EventError::Io(_))));
    assert!(board.is_offloaded(assigned));
    assert!(is_busy(board.offload.assign(descriptor(&event), MSI)));
    board.kvm.state().refuses.clear();
    board.offload.deassign(assigned).unwrap();
}

#[test]
fn a_resampling_source_that_moves_between_pins_of_kvm_is_asked_for_its_level() {
    let Some(board) = Board::new(Irqchip::Kernel) else { return };
    let (event, resample) = (fd::eventfd().unwrap(), fd::eventfd().unwrap());
    let assigned = board.offload.assign_resample(descriptor(&event), LEVEL, &resample).unwrap();
    board.kvm.signal(&event);
    assert_eq!(board.arrived().0, [Route::Level(PIN)]);
    board.kvm.acknowledge(LEVEL);
    assert_eq!((count(&resample), board.kvm.state().resampling()), (1, vec![LEVEL]));

    let calls = board.kvm.state().calls.len();
    let moved = table(&[(LEVEL, Route::Level(OTHER_PIN)), (MSI, Route::Msi(MESSAGE))]);
    board.reroute(moved);
    assert_eq!(
        board.kvm.state().calls[calls..],
        [Call::Unregister, Call::Routes, Call::Register],
        "KVM lowers where it was raised, and raises where it is"
    );
    assert!(board.is_offloaded(assigned));
    assert!(count(&resample) > 0, "the device is asked");
    board.kvm.signal(&event);
    assert_eq!(board.arrived().0, [Route::Level(OTHER_PIN)]);

    // Others are not disturbed.
    let again = board.kvm.state().calls.len();
    board.reroute(table(&[(LEVEL, Route::Level(OTHER_PIN))]));
    assert_eq!(board.kvm.state().calls[again..], [Call::Routes]);
    assert_eq!(count(&resample), 0);
    board.offload.deassign(assigned).unwrap();
    assert_eq!((board.kvm.state().irqfds(), board.vm.assigned()), (0, 0));
}

#[test]
fn a_level_that_a_loop_has_raised_is_lowered_when_kvm_takes_over() {
    let Some(board) = Board::new(Irqchip::Kernel) else { return };
    board.kvm.state().refuses.insert(Call::Register);
    let (event, resample) = (fd::eventfd().unwrap(), fd::eventfd().unwrap());
    let assigned = board.offload.assign_resample(descriptor(&event), LEVEL, &resample).unwrap();
    board.kvm.signal(&event);
    let _ = board.arrived();
    assert_ne!(board.vm.controller().level(PIN), 0);
    board.kvm.state().refuses.clear();
    board.route(&[Route::Msi(MESSAGE)]);
    assert!(board.is_offloaded(assigned));
    assert_eq!((board.vm.controller().level(PIN), count(&resample)), (0, 1));
}

#[test]
fn a_pulse_of_kvm_ends_at_the_pin_where_it_has_begun() {
    let Some(board) = Board::new(Irqchip::Kernel) else { return };
    let pins = [EDGE_PIN, OTHER_PIN].map(Route::Pin);
    board.route(&pins[..1]);
    let (event, assigned) = board.assign(MOVED);
    // From a pin to a message, to another pin, and to none, each time before the pulse is over.
    for between in [&[Route::Msi(MOVED_MESSAGE)][..], &pins[1..], &pins, &[]] {
        for _ in 0..2 {
            board.kvm.signal(&event);
            assert_eq!(board.arrived(), (vec![pins[0]], vec![]));
        }
        board.route(between);
        board.kvm.state().end_pulses();
        board.route(&pins[..1]);
    }
    assert!(board.is_offloaded(assigned));
    assert_eq!(board.kvm.state().lost, 0);
}

#[test]
fn a_resampling_source_is_the_loops_where_its_route_is_a_message() {
    for irqchip in [SPLIT, Irqchip::Kernel] {
        let Some(board) = Board::new(irqchip) else { return };
        board.route(&[Route::Pin(OTHER_PIN)]);
        let (event, resample) = (fd::eventfd().unwrap(), fd::eventfd().unwrap());
        let assigned = board.offload.assign_resample(descriptor(&event), MOVED, &resample).unwrap();
        board.route(&[Route::Msi(MOVED_MESSAGE)]);
        assert!(!board.is_offloaded(assigned), "KVM would never tell its device of an end");
        assert!(board.offload.take_refusal().is_none());
        board.kvm.signal(&event);
        assert_eq!(board.arrived(), (vec![], vec![Seen::Msi(MOVED_MESSAGE)]));
    }
}

#[test]
fn kvm_knows_the_redirection_entries_of_a_split_irqchip_beside_the_messages() {
    let Some(board) = Board::new(SPLIT) else { return };
    let entry = |vector: u32| Msi::new(0xfee0_0000, 0xc000 | vector);
    let message = (MSI, Route::Msi(MESSAGE));
    let routes = || board.kvm.state().routes.clone();
    board.offload.redirect(Gsi(5), Some(entry(0x70))).unwrap();
    assert_eq!(routes(), [(Gsi(5), Route::Msi(entry(0x70))), message]);
    let calls = board.kvm.state().calls.len();
    board.offload.redirect(Gsi(5), Some(entry(0x70))).unwrap();
    assert_eq!(board.kvm.state().calls.len(), calls, "nothing has changed");

    board.kvm.state().refuses.insert(Call::Routes);
    assert!(board.offload.redirect(Gsi(5), None).is_err());
    board.kvm.state().refuses.clear();
    board.route(&[Route::Msi(MOVED_MESSAGE)]);
    let moved = (MOVED, Route::Msi(MOVED_MESSAGE));
    assert_eq!(routes(), [(Gsi(5), Route::Msi(entry(0x70))), message, moved]);
    board.offload.redirect(Gsi(5), None).unwrap();
    assert_eq!(routes(), [message, moved]);
    let beyond = board.offload.redirect(Gsi(24), None);
    assert!(matches!(beyond, Err(EventError::Irqfd(Error::GsiOutOfRange(Gsi(24))))));

    let Some(board) = Board::new(Irqchip::User) else { return };
    board.offload.redirect(Gsi(5), Some(entry(0x70))).unwrap();
    assert_eq!(board.kvm.state().calls, [], "without irqchips, KVM has no routes");
}

#[test]
fn edits_that_are_published_together_move_their_eventfds() {
    let Some(board) = Board::new(SPLIT) else { return };
    let routes = Routes::new(&board.vm, Gsi(25)..Gsi(64));
    let gsis = [(); 4].map(|()| routes.allocate().unwrap());
    for gsi in gsis {
        routes.set(gsi, &[Route::Msi(MOVED_MESSAGE)]).unwrap();
    }
    routes.publish().unwrap().follow(&board.offload);
    let sources = gsis.map(|gsi| board.assign(gsi));
    assert!(sources.iter().all(|(_, assigned)| board.is_offloaded(*assigned)));
    routes.free(gsis[0]).unwrap();
    routes.set(gsis[1], &[Route::Pin(EDGE_PIN)]).unwrap();
    let calls = board.kvm.state().calls.len();
    routes.publish().unwrap().follow(&board.offload);
    let by_kvm = sources.each_ref().map(|(_, assigned)| board.is_offloaded(*assigned));
    assert_eq!(by_kvm, [false, false, true, true]);
    let calls = board.kvm.state().calls[calls..].to_vec();
    assert_eq!(calls, [Call::Unregister, Call::Unregister, Call::Routes]);
    assert_eq!(routes.allocate(), Ok(gsis[0]));
}

/// Has a vCPU kicked for each event.
struct Kicks;

#[derive(Default)]
#[must_use]
struct Kick(u32);

#[derive(Default)]
struct Owes(u32);

impl Delivery for Owes {
    type Owed = Kick;

    fn outcome(&self) -> Outcome {
        Outcome::Delivered
    }
    fn owed(self) -> Kick {
        Kick(self.0)
    }
    fn and(self, other: Self) -> Self {
        Owes(self.0 + other.0)
    }
}

impl Controller for Kicks {
    type Delivery = Owes;

    fn pins(&self, _: u16) -> u32 {
        PINS
    }
    fn set_irq(&self, _: Pin, _: SourceId, level: bool) -> Owes {
        Owes(level.into())
    }
    fn edge(&self, _: Pin) -> Owes {
        Owes(1)
    }
    fn msi(&self, _: Msi) -> Owes {
        Owes(1)
    }
}

#[test]
fn what_a_controller_owes_for_an_event_that_is_found_in_an_eventfd_is_done() {
    if Board::new(SPLIT).is_none() {
        return;
    }
    let kicks = Arc::new(AtomicU32::new(0));
    let kicked = Arc::clone(&kicks);
    let settles = move |Kick(count)| _ = kicked.fetch_add(count, SeqCst);
    let events = Arc::new(EventLoop::unthreaded_settling(settles).unwrap());
    let vm = Irqfds::<Std, _>::new(Kicks, Limits::default());
    let kvm = Arc::new(FakeKvm::new(SPLIT));
    let offload = Offload::new(&vm, &events, Arc::clone(&kvm), SPLIT).unwrap();
    let by_kvm = table(&[(MOVED, Route::Msi(MOVED_MESSAGE)), (EDGE, Route::Edge(EDGE_PIN))]);
    let _ = vm.reroute(by_kvm).unwrap().follow_owing(&offload);

    // One that the loop finds, and one that was pending.
    let event = fd::eventfd().unwrap();
    kvm.signal(&event);
    let assigned = offload.assign(descriptor(&event), EDGE).unwrap();
    assert_eq!(kicks.load(SeqCst), 1);
    offload.deassign(assigned).unwrap();
    let kept = descriptor(&event);
    kept.pend();
    offload.assign(kept, MOVED).unwrap();
    assert_eq!(kicks.load(SeqCst), 2);
}

#[test]
fn a_vm_that_is_shut_down_leaves_nothing_to_kvm_and_takes_nothing_more() {
    let Some(board) = Board::new(SPLIT) else { return };
    let sources = [board.assign(MSI), board.assign(EDGE), board.assign(MSI)];
    board.offload.close().wait();
    assert_eq!((board.kvm.state().irqfds(), board.events.len(), board.vm.assigned()), (0, 0, 0));
    for (event, assigned) in &sources {
        board.kvm.signal(event);
        assert!(board.offload.is_offloaded(*assigned).is_err());
        let closed = board.offload.assign(descriptor(event), MSI);
        assert!(matches!(closed, Err(EventError::Irqfd(Error::Closed))));
    }
    assert_eq!(board.arrived(), (vec![], vec![]));
    assert!(sources.iter().all(|(event, _)| count(event) == 1));
    // Others may serve them.
    let Some(other) = Board::new(SPLIT) else { return };
    sources.iter().for_each(|(event, _)| {
        other.offload.assign(descriptor(event), MSI).unwrap();
    });
    let kvm = Arc::clone(&other.kvm);
    drop(other.offload);
    assert_eq!((kvm.state().irqfds(), other.events.len()), (0, 0));
    while other.vm.assigned() > 0 {
        thread::yield_now();
    }
    assert!(other.events.assign(&other.vm, descriptor(&sources[0].0), MSI).is_ok());
}

#[test]
fn one_that_the_loop_has_left_when_the_vm_was_shut_down_is_not_assigned_and_others_may_have_it() {
    let Some(board) = Board::new(SPLIT) else { return };
    let (event, assigned) = board.assign(EDGE);
    board.vm.close().wait();
    board.kvm.signal(&event);
    assert_eq!(board.arrived(), (vec![], vec![]));
    let Some(other) = Board::new(SPLIT) else { return };
    let theirs = other.offload.assign(descriptor(&event), MSI).unwrap();
    let gone = board.offload.deassign(assigned);
    assert!(matches!(gone, Err(EventError::Irqfd(Error::NotAssigned))), "{gone:?}");
    assert!(is_busy(other.offload.assign(descriptor(&event), MSI)), "it is the other's still");
    other.offload.deassign(theirs).unwrap();
}

#[test]
fn what_a_vm_refuses_is_free_and_a_vm_that_has_no_room_takes_nothing_to_kvm() {
    let Some(board) = Board::new(SPLIT) else { return };
    let event = fd::eventfd().unwrap();
    let _is_known_as_long_as_this_is = descriptor(&event);
    let unknown = board.offload.assign(descriptor(&event), UNROUTED);
    assert!(matches!(unknown, Err(EventError::Irqfd(Error::UnknownGsi(UNROUTED)))));
    let level = board.offload.assign(descriptor(&event), LEVEL);
    assert!(matches!(level, Err(EventError::Irqfd(Error::NeedsResampling(LEVEL)))));
    let own = board.offload.assign_resample(descriptor(&event), LEVEL, &event);
    assert!(matches!(own, Err(EventError::OwnSink)));
    board.offload.assign(descriptor(&event), MSI).unwrap();

    let full: Vm = Irqfds::new(Arc::default(), Limits { irqfds: 0, ..Limits::default() });
    let kvm = Arc::new(FakeKvm::new(SPLIT));
    let offload = Offload::new(&full, &board.events, Arc::clone(&kvm), SPLIT).unwrap();
    full.reroute(table(&standard())).unwrap().follow(&offload);
    let none = offload.assign(descriptor(&fd::eventfd().unwrap()), MSI);
    assert!(matches!(none, Err(EventError::Irqfd(Error::TooManyIrqfds(0)))));
    assert_eq!(kvm.state().irqfds(), 0);
}
