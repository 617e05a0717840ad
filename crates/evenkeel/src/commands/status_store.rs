//! What `evenkeel status` says of the store.

use std::fmt::Write;

use model::status::StoreStatus;

use crate::hub;
use crate::table::{Paint, Tone};

/// Reasons of a refusal that are shown; all are in `--json`.
const REASONS_SHOWN: usize = 5;

/// Lines about the store; none about an embedded one that holds nothing and works.
pub(super) fn render(out: &mut String, store: &StoreStatus, paint: Paint) {
    let StoreStatus {
        kind,
        connected,
        trouble,
        head,
        served,
        refused,
        name_taken,
    } = store;
    if kind == "embedded" && *head == 0 && refused.is_none() && trouble.is_none() {
        return;
    }
    let serves = match served == head {
        true => format!("serves its revision {served}"),
        false => format!("serves revision {served} of {head}"),
    };
    let heard = match (connected, trouble) {
        (true, _) => String::new(),
        (false, None) => ", not heard yet".to_owned(),
        (false, Some(trouble)) => format!(", NOT HEARD: {trouble}"),
    };
    let tone = if *connected { Tone::Plain } else { Tone::Bad };
    let _ = writeln!(
        out,
        "{}",
        paint.text(tone, &format!("store {kind}: {serves}{heard}"))
    );
    if let Some(refused) = refused {
        let words = format!("revision {} is REFUSED here:", refused.revision);
        let _ = writeln!(out, "  {}", paint.text(Tone::Bad, &words));
        for reason in refused.reasons.iter().take(REASONS_SHOWN).flat_map(|r| r.lines()) {
            let _ = writeln!(out, "    {}", paint.text(Tone::Plain, reason));
        }
    }
    if let Some(other) = name_taken {
        let words = format!("NAME TAKEN: {}", hub::name_taken(other));
        let _ = writeln!(out, "  {}", paint.text(Tone::Bad, &words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::node::NameTaken;
    use model::state::Timestamp;
    use model::status::RefusedRevision;

    fn told(store: &StoreStatus) -> String {
        let mut out = String::new();
        render(&mut out, store, Paint::for_terminal(false));
        out
    }

    #[test]
    fn a_node_that_is_behind_says_why() {
        let mut store = StoreStatus {
            kind: "embedded".into(),
            connected: true,
            ..StoreStatus::default()
        };
        assert_eq!(told(&store), "");
        (store.head, store.served) = (7, 6);
        store.refused = Some(RefusedRevision {
            revision: 7,
            reasons: vec!["0.0.0.0:80 is listened on twice".into()],
        });
        assert_eq!(
            told(&store),
            "store embedded: serves revision 6 of 7\n  revision 7 is REFUSED here:\n    0.0.0.0:80 is listened on twice\n"
        );
        store = StoreStatus {
            kind: "etcd".into(),
            trouble: Some("no endpoint can be reached".into()),
            head: 6,
            served: 6,
            ..StoreStatus::default()
        };
        assert_eq!(
            told(&store),
            "store etcd: serves its revision 6, NOT HEARD: no endpoint can be reached\n"
        );
        (store.connected, store.trouble) = (true, None);
        store.name_taken = Some(NameTaken {
            since: Timestamp(1),
            started: Timestamp(0),
            zone: Some("a".into()),
            addresses: vec![([10, 0, 0, 1], 80).into(), ([10, 0, 0, 1], 443).into()],
        });
        let told = told(&store);
        assert!(
            told.contains(
                "\n  NAME TAKEN: another process has this node's name in the store (it was started at \
                 1970-01-01 00:00:00Z, takes clients at 10.0.0.1:80, 10.0.0.1:443, zone a): this one serves"
            ),
            "{told}"
        );
    }
}
