//! What irqfds and eventfds take of memory, and what it costs to read an eventfd in a way that
//! cannot wait.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench irqfds
//! ```
//!
//! Memory is what is allocated and not freed, counted; the kernel's is not in it.

#[cfg(target_os = "linux")]
#[global_allocator]
static HEAP: doorbell_bench::heap::Counting = doorbell_bench::heap::Counting;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("not run: there are no eventfds here");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::sync::Arc;

    use doorbell_bench::args::{About, Format};
    use doorbell_bench::clock::thread_time;
    use doorbell_bench::heap::live;
    use doorbell_bench::table::count;
    use doorbell_irqfd::eventfd::{Descriptor, EventLoop, Irqchip, KvmVm, Offload};
    use doorbell_irqfd::{
        Controller, Gsi, Irqfds, Limits, Msi, NoBypass, Pin, Route, RoutingTable, SourceId,
    };
    use doorbell_platform::{Std, fd};

    const EVENTFDS: usize = 4_096;
    const IRQFDS: usize = 10_000;

    struct Chip;
    impl Controller for Chip {
        type Delivery = ();

        fn pins(&self, _: u16) -> u32 {
            24
        }
        fn set_irq(&self, _: Pin, _: SourceId, _: bool) {}
        fn edge(&self, _: Pin) {}
        fn msi(&self, _: Msi) {}
    }

    /// A KVM that takes whatever it is given.
    struct Takes;
    impl KvmVm for Takes {
        fn register_irqfd(
            &self,
            _: BorrowedFd<'_>,
            _: Gsi,
            _: Option<BorrowedFd<'_>>,
        ) -> io::Result<()> {
            Ok(())
        }
        fn unregister_irqfd(&self, _: BorrowedFd<'_>, _: Gsi) -> io::Result<()> {
            Ok(())
        }
        fn set_gsi_routing(&self, _: &[(Gsi, Route)]) -> io::Result<()> {
            Ok(())
        }
    }

    const MESSAGE: Gsi = Gsi(24);
    const LEVEL: Gsi = Gsi(5);

    fn vm() -> Irqfds<Std, Chip> {
        let vm = Irqfds::new(Chip, Limits::default());
        let routes = [
            (MESSAGE, Route::Msi(Msi::new(0xfee0_0000, 0x41))),
            (LEVEL, Route::Level(Pin::new(0, 5))),
        ];
        let table = RoutingTable::new(&routes).expect("a table");
        vm.reroute(table).expect("it has pins").follow(&NoBypass);
        vm
    }

    fn descriptor() -> Descriptor {
        Descriptor::owned_eventfd(fd::eventfd().expect("a descriptor")).expect("an eventfd")
    }

    /// What each of so many takes, with the first one's growth of lists, in bytes and blocks.
    fn each<T>(name: &'static str, many: usize, make: impl FnMut() -> T) -> Row {
        let mut kept: Vec<T> = Vec::with_capacity(many);
        let before = live();
        kept.extend(std::iter::repeat_with(make).take(many));
        let (bytes, blocks) = live();
        let per = |now: i64, before: i64| (now - before) as f64 / many as f64;
        Row { name, many, bytes: per(bytes, before.0), blocks: per(blocks, before.1) }
    }

    struct Row {
        name: &'static str,
        many: usize,
        bytes: f64,
        blocks: f64,
    }

    fn memory() -> Vec<Row> {
        let events = Arc::new(EventLoop::unthreaded().expect("an epoll"));
        let irqfds = vm();
        let kvm = Irqchip::Split { pins: 24 };
        let offload = Offload::new(&irqfds, &events, Takes, kvm).expect("it takes it");
        let one = vm();
        let mut rows = vec![each("VM, without any", 1, vm)];
        rows.push(each("served eventfd", EVENTFDS, || {
            events.assign(&one, descriptor(), MESSAGE).expect("it is assigned")
        }));
        rows.push(each("offloaded eventfd", EVENTFDS, || {
            offload.assign(descriptor(), MESSAGE).expect("it is assigned")
        }));
        let (plain, resampling) = (vm(), vm());
        rows.push(each("assigned irqfd", IRQFDS, || {
            let irqfd = plain.irqfd();
            irqfd.assign(MESSAGE).expect("it is assigned");
            irqfd
        }));
        rows.push(each("assigned irqfd that resamples", IRQFDS, || {
            let irqfd = resampling.irqfd();
            irqfd.assign_resample(LEVEL, Arc::new(|| {})).expect("it is assigned");
            irqfd
        }));
        rows
    }

    /// Nanoseconds of one of many.
    fn time(many: u32, mut f: impl FnMut()) -> f64 {
        (0..many / 10).for_each(|_| f());
        let begun = thread_time();
        (0..many).for_each(|_| f());
        (thread_time() - begun).as_nanos() as f64 / f64::from(many)
    }

    fn written() -> (OwnedFd, impl FnMut()) {
        let event = fd::eventfd().expect("a descriptor");
        let mut file = File::from(event.try_clone().expect("a descriptor"));
        (event, move || file.write_all(&1_u64.to_ne_bytes()).expect("it is not full"))
    }

    fn costs(many: u32) -> [(&'static str, f64); 3] {
        let ((event, mut write), mut count) = (written(), [0; 8]);
        let now = time(many, || {
            write();
            fd::read_now(event.as_fd(), &mut count).expect("it was written");
        });
        let mut file = File::from(event);
        let plain = time(many, || {
            write();
            file.read_exact(&mut count).expect("it was written");
        });
        let (vm, events) = (vm(), EventLoop::unthreaded().expect("an epoll"));
        let (event, mut write) = written();
        let descriptor = Descriptor::owned_eventfd(event).expect("an eventfd");
        events.assign(&vm, descriptor, MESSAGE).expect("it is assigned");
        let served = time(many, || {
            write();
            assert_eq!(events.dispatch().expect("it is open"), 1);
        });
        [
            ("write, and a read that cannot wait", now),
            ("write, and a plain read", plain),
            ("write, and a dispatch to a controller that does nothing", served),
        ]
    }

    pub fn main() {
        let about = About {
            name: "irqfds",
            what: "Counts what irqfds and eventfds take of memory, and times reads of an eventfd.",
            option: Some(("--thousands", "how many thousand reads [default: 300]")),
        };
        let args = about.args();
        let rows = memory();
        let costs = costs((args.number.unwrap_or(300.0) * 1e3) as u32);
        match args.format {
            Format::Table => {
                println!("| | how many | bytes each | blocks each |\n|---|---|---|---|");
                for Row { name, many, bytes, blocks } in rows {
                    println!("| {name} | {} | {bytes:.0} | {blocks:.1} |", count(many as u64));
                }
                println!("\n| one event | ns |\n|---|---|");
                for (name, nanos) in costs {
                    println!("| {name} | {nanos:.0} |");
                }
            }
            Format::Json => {
                for Row { name, many, bytes, blocks } in rows {
                    let row = serde_json::json!({ "what": name, "many": many, "bytes": bytes, "blocks": blocks });
                    println!("{row}");
                }
                for (name, nanos) in costs {
                    println!("{}", serde_json::json!({ "what": name, "ns": nanos }));
                }
            }
        }
    }
}
