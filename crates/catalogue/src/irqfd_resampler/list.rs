//! A list that is changed under a lock and walked without it, a pointer at a time.

use doorbell_explore::sim::Model;

/// A list whose members keep their pointer when they are taken off, as those of `list_del_rcu` do.
pub(super) struct List<T>(Model<State<T>>);

struct State<T> {
    head: Option<usize>,
    /// All that were ever put on it: a walk may have come to one that was taken off meanwhile.
    nodes: Vec<Node<T>>,
}

struct Node<T> {
    item: T,
    next: Option<usize>,
}

impl<T: Clone> List<T> {
    /// Returns a list of these.
    pub(super) fn new(name: &'static str, items: impl IntoIterator<Item = T>) -> List<T> {
        let mut state = State { head: None, nodes: Vec::new() };
        items.into_iter().for_each(|item| state.add(item));
        List(Model::new(name, state))
    }

    /// Puts an item at the head, as `list_add_rcu` does. By who holds the list's lock.
    #[track_caller]
    pub(super) fn add(&self, item: T) {
        self.0.change(|state| state.add(item));
    }

    /// Takes an item off. Returns it, if it was there, and whether none is left. By who holds the
    /// list's lock.
    #[track_caller]
    pub(super) fn remove(&self, is_it: impl Fn(&T) -> bool) -> (Option<T>, bool) {
        self.0.change(|state| (state.remove(is_it), state.head.is_none()))
    }

    /// Calls `visit` with each item that the pointers lead to. By anybody, in a read section.
    #[track_caller]
    pub(super) fn walk(&self, mut visit: impl FnMut(&T)) {
        let item = |state: &State<T>, at: Option<usize>| {
            at.map(|index| (index, state.nodes[index].item.clone()))
        };
        let mut at = self.0.observe(|state| item(state, state.head));
        while let Some((index, here)) = at {
            visit(&here);
            at = self.0.observe(|state| item(state, state.nodes[index].next));
        }
    }

    /// Returns how many are on it.
    pub(super) fn len(&self) -> usize {
        let mut count = 0;
        self.walk(|_| count += 1);
        count
    }
}

impl<T: Clone> State<T> {
    fn add(&mut self, item: T) {
        self.nodes.push(Node { item, next: self.head });
        self.head = Some(self.nodes.len() - 1);
    }

    fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let mut before: Option<usize> = None;
        let mut at = self.head;
        while let Some(index) = at {
            let next = self.nodes[index].next;
            if is_it(&self.nodes[index].item) {
                match before {
                    None => self.head = next,
                    Some(before) => self.nodes[before].next = next,
                }
                return Some(self.nodes[index].item.clone());
            }
            before = at;
            at = next;
        }
        None
    }
}
