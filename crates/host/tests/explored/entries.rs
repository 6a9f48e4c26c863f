//! Entries of an IOMMU that change their vCPU while it moves, and while the device posts.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::removal::Program;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine};
use doorbell_post::Requests;

use crate::machine::{Cache, HERE, Machines, OTHERS, THERE, bind, host};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("bind, a vCPU that moves, and a device", |m| binds(m, true)),
        Program::new("bind, and a vCPU that moves and is put", |m| binds(m, false)),
        Program::new("unbind, a vCPU that stays in the guest, and a device", |m| {
            unbinds(m, Life::Stays, Cache::Stale)
        }),
        Program::new("unbind, a vCPU that sleeps, and a device", |m| {
            unbinds(m, Life::Sleeps, Cache::Stale)
        }),
        Program::new("unbind, a vCPU that sleeps, and a device that reads the entry", |m| {
            unbinds(m, Life::Sleeps, Cache::Empty)
        }),
        Program::new("a vCPU on which posting is inhibited, and a device", inhibited),
        Program::new("retarget from a vCPU in the guest to another, and a device", |m| {
            retargets(m, Life::Stays, true)
        }),
        Program::new("retarget from a vCPU that sleeps to one in the guest, and a device", |m| {
            retargets(m, Life::Sleeps, true)
        }),
        Program::new(
            "retarget between two vCPUs that move, and a device",
            retargets_while_both_move,
        ),
        Program::new("bind and unbind, and the host moves it", moved_meanwhile),
        Program::new("bind, and the host moves it", moved_at_last),
        Program::new("two move it in the host, one of them back", moved_back),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    Stays,
    Sleeps,
    Inhibited,
}

/// What the device has posted by the former entry is found by nobody else.
#[test]
fn a_retarget_after_which_nobody_looks_at_the_former_vcpu_loses_an_interrupt() {
    for life in [Life::Stays, Life::Sleeps] {
        let report = Explore::new("retarget").run(move |m| retargets(m, life, false));
        report.assert_found(FailureKind::Quiescence);
    }
}

/// X08: the entry must not keep where the vCPU was.
fn binds(m: &Machine, posts: bool) {
    let all = Machines::new();
    let runs = Arc::clone(&all.vcpus[0]);
    m.task_on(HERE, "vCPU", move || {
        if !posts {
            runs.load(HERE);
            return runs.put();
        }
        runs.load(HERE);
        runs.put();
        runs.load(THERE);
        runs.stay(THERE);
    });
    let binds = Rc::clone(&all);
    m.task_on(OTHERS, "bind", move || {
        let token = binds.with_binding(|binding| bind(binding, &binds.vcpus[0]));
        binds.invalidate(token);
    });
    if posts {
        all.device(m);
        all.nothing_lost(m);
    }
    all.says_where_it_is(m, Some(0));
}

fn vcpu(m: &Machine, all: &Rc<Machines>, life: Life) {
    let runs = Arc::clone(&all.vcpus[0]);
    m.task_on(HERE, "vCPU", move || match life {
        Life::Stays | Life::Inhibited => runs.stay(HERE),
        Life::Sleeps => {
            let _ = runs.sleep();
        }
    });
    if life == Life::Inhibited {
        let vcpu = Arc::clone(&all.vcpus[0]);
        m.task("inhibit", move || vcpu.act(vcpu.post.run_state().request(Requests(1))));
    } else if life == Life::Stays {
        all.vcpus[0].load(HERE);
    }
}

fn unbinds(m: &Machine, life: Life, cache: Cache) {
    let all = Machines::new();
    all.bound(cache);
    vcpu(m, &all, life);
    let unbinds = Rc::clone(&all);
    m.task_on(OTHERS, "unbind", move || {
        let token = unbinds.with_binding(|binding| binding.unbind().expect("it is bound"));
        unbinds.looks_again(token);
    });
    all.device(m);
    all.nothing_lost(m);
    all.says_where_it_is(m, None);
}

/// The entry stays in guest mode: the log says that somebody has to look, and the vCPU is kicked
/// out of the guest.
fn inhibited(m: &Machine) {
    let all = Machines::new();
    all.vcpus[0].load(HERE);
    all.bound(Cache::Stale);
    vcpu(m, &all, Life::Inhibited);
    all.device(m);
    all.nothing_lost(m);
    all.says_where_it_is(m, Some(0));
}

fn retarget(m: &Machine, all: &Rc<Machines>, looks_again: bool) {
    let moves = Rc::clone(all);
    m.task_on(OTHERS, "retarget", move || {
        moves.route.change(|route| *route = 1);
        let (looks, bound) = moves.with_binding(|binding| {
            let looks = binding.unbind().expect("it is bound");
            (looks, bind(binding, &moves.vcpus[1]))
        });
        // One invalidation is enough for both: it comes after both changes.
        let looks = moves.invalidate(looks);
        bound.by(|_| ());
        if looks_again {
            looks.0.look();
        }
    });
}

fn retargets_while_both_move(m: &Machine) {
    let all = Machines::new();
    all.vcpus.iter().zip([HERE, THERE]).for_each(|(vcpu, at)| vcpu.load(at));
    all.bound(Cache::Empty);
    for (vcpu, at) in all.vcpus.iter().zip([HERE, THERE]) {
        let runs = Arc::clone(vcpu);
        m.task_on(at, "vCPU", move || {
            runs.put();
            runs.load(at);
            runs.stay(at);
        });
    }
    retarget(m, &all, true);
    all.device(m);
    all.nothing_lost(m);
    all.says_where_it_is(m, Some(1));
}

fn retargets(m: &Machine, life: Life, looks_again: bool) {
    let all = Machines::new();
    all.bound(Cache::Stale);
    vcpu(m, &all, life);
    let runs = Arc::clone(&all.vcpus[1]);
    all.vcpus[1].load(THERE);
    m.task_on(THERE, "vCPU B", move || runs.stay(THERE));
    retarget(m, &all, looks_again);
    all.device(m);
    all.nothing_lost(m);
    all.says_where_it_is(m, Some(1));
}

/// The entry says where the interrupt arrives in the host now: it says the same after it was bound
/// and unbound again.
fn says_the_current_host(m: &Machine, all: &Rc<Machines>) {
    let all = Rc::clone(all);
    m.at_quiescence("the entry says where the interrupt arrives in the host", move || {
        let before = all.entry().as_host();
        all.with_binding(|binding| {
            bind(binding, &all.vcpus[0]).by(|_| ());
            let _ = binding.unbind().expect("it is bound").by(|_| ());
        });
        let now = all.entry().as_host();
        (before.is_some() && before == now)
            .then_some(())
            .ok_or_else(|| format!("{before:?}, but {now:?}"))
    });
}

fn set_host(m: &Machine, all: &Rc<Machines>, destinations: &'static [u32]) {
    let all = Rc::clone(all);
    m.task("the host moves it", move || {
        for destination in destinations {
            // Nobody looks at what the IOMMU does here.
            all.interrupt.set_host(host(*destination)).by(|_| ());
        }
    });
}

fn moved_meanwhile(m: &Machine) {
    let all = Machines::new();
    let binds = Rc::clone(&all);
    m.task("bind and unbind", move || {
        binds.with_binding(|binding| {
            bind(binding, &binds.vcpus[0]).by(|_| ());
            let _ = binding.unbind().expect("it is bound").by(|_| ());
        });
    });
    set_host(m, &all, &[8]);
    says_the_current_host(m, &all);
}

fn moved_at_last(m: &Machine) {
    let all = Machines::new();
    let binds = Rc::clone(&all);
    m.task("bind", move || binds.with_binding(|binding| bind(binding, &binds.vcpus[0]).by(|_| ())));
    set_host(m, &all, &[8]);
    all.says_where_it_is(m, Some(0));
}

fn moved_back(m: &Machine) {
    let all = Machines::new();
    set_host(m, &all, &[8, 7]);
    set_host(m, &all, &[9]);
    says_the_current_host(m, &all);
}
