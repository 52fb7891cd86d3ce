//! The page: self-contained, readable in light and dark, in print and without colour.

use super::{Debate, bounds, by_case, caveat, coverage};
use crate::debate::claim::{Outcome, Verdict};
use crate::debate::judge::{Evidence, Judgement};
use crate::debate::lanes::Lanes;
use crate::plain::html as escape;
use crate::plot::grouped;

const STYLE: &str = "
:root{--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d0d7de;--card:#f6f8fa;--link:#0b57a4}
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ed;--soft:#9aa4af;--line:#3a424c;--card:#1c2126;--link:#8ec5ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:62rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0 1rem}h2{font-size:1.3rem;margin:2.5rem 0 .75rem}
h3{font-size:1.1rem;margin:0 0 .5rem}
a{color:var(--link)}p{margin:.5rem 0}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid var(--line)}
th{font-weight:600}td.id{white-space:nowrap;font-weight:600}
.scroll{overflow-x:auto}
.v{display:inline-block;white-space:nowrap;border:1.5px solid currentColor;border-radius:.3rem;padding:0 .4rem;font-size:.85rem;font-weight:600}
.v::before{margin-right:.3rem}
.confirmed::before{content:'\\2713'}.conditional::before{content:'\\2713*'}.refuted::before{content:'\\2717'}.cost::before{content:'\\2211'}.undecidable::before{content:'?'}
.refuted{background:var(--fg);color:var(--bg);border-color:var(--fg)}.conditional{border-style:dashed}.undecidable{border-style:dotted}
section.claim{border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:1rem 0}
dl{display:grid;grid-template-columns:7rem 1fr;gap:.25rem .75rem;margin:.5rem 0}dl.verdicts{grid-template-columns:9rem 1fr}dt{color:var(--soft)}dd{margin:0}
details{margin:.6rem 0}summary{cursor:pointer}
.lanes{font-size:.82rem}.lanes th,.lanes td{border:1px solid var(--line);padding:.25rem .45rem}
.lanes td.note{font-weight:600}.lanes td.off{background:var(--card)}
.soft{color:var(--soft)}.small{font-size:.85rem}
code{font-family:ui-monospace,monospace;font-size:.85em;background:var(--card);padding:.05rem .25rem;border-radius:.2rem;overflow-wrap:anywhere}
figure{margin:1.5rem 0}figure svg{max-width:100%;height:auto;background:#fff;border-radius:.4rem}
figcaption{margin-top:.4rem}
@media (max-width:40rem){dl,dl.verdicts{grid-template-columns:1fr}dt{margin-top:.4rem}
.cards thead{position:absolute;left:-99rem}.cards,.cards tbody,.cards tr,.cards td{display:block;width:100%}
.cards tr{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0;padding:.3rem .5rem}.cards td,.lanes.cards td{border:0;padding:.1rem 0}.cards td.off,.cards td:empty{display:none}
.cards td[data-label]::before{content:attr(data-label)': ';color:var(--soft)}}
@media print{details>*{display:block}tr,figure{break-inside:avoid}}
";

fn badge(verdict: Verdict) -> String {
    let name = verdict.name();
    format!("<span class=\"v {name}\">{name}</span>")
}

/// The words of the table, for a reader who does not know the thread.
const GLOSSARY: [(&str, &str); 9] = [
    (
        "VMM",
        "the program that runs the virtual machine: QEMU, cloud-hypervisor, Firecracker",
    ),
    (
        "ring",
        "a vCPU's list of the pages it wrote; user space harvests its entries",
    ),
    (
        "RESET",
        "KVM_RESET_DIRTY_RINGS: frees harvested entries and re-arms their pages",
    ),
    ("bitmap", "a bit for each page of a memory slot"),
    (
        "GET",
        "KVM_GET_DIRTY_LOG: fetches a slot's bitmap; without manual protection it clears and re-arms too",
    ),
    (
        "CLEAR",
        "KVM_CLEAR_DIRTY_LOG: with manual protection, clears and re-arms what it is told to",
    ),
    (
        "re-arm",
        "make the next store to a page leave a record: take write permission away, and flush the TLBs that still have it",
    ),
    (
        "ITS",
        "arm64's interrupt translation service; its tables live in guest memory and are saved by an ioctl, with no vCPU running",
    ),
    (
        "lost",
        "the page differs at the destination, and nothing is left that says so",
    ),
];

/// What the table says of a claim beside its verdict.
fn comes_to(judgement: &Judgement) -> String {
    let claim = &judgement.claim;
    let mut text = escape(&claim.answer);
    if let Some(condition) = &claim.condition {
        text = format!("<b>Exactly if</b> {}. {text}", escape(condition));
    }
    if let (Verdict::Cost, Some(figure)) = (judgement.verdict, &judgement.figure) {
        text.push_str(&format!(" {}", escape(&figure.text)));
    }
    if let (Verdict::Undecidable, Some(open)) = (judgement.verdict, &claim.open) {
        text.push_str(&format!(" {}", escape(open)));
    }
    text
}

/// The page.
#[must_use]
pub fn page(debate: &Debate) -> String {
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>",
    );
    out.push_str(&escape(debate.title()));
    out.push_str("</title>\n<style>");
    out.push_str(STYLE);
    out.push_str(&format!(
        "</style></head><body><main>\n<h1>{}</h1>\n<p>{}</p>\n",
        escape(debate.title()),
        escape(&debate.introduction())
    ));
    out.push_str(&format!(
        "<p>{}; {} scenarios; {} states. Every file named here lies beside this page: <a href=\"debate.txt\">the text for a list</a>, <a href=\"debate.json\">the document</a>, <code>scenarios/</code>, <code>traces/</code>.</p>\n",
        debate.count(),
        debate.scenarios(),
        grouped(debate.states())
    ));
    out.push_str("<details open><summary>Words</summary>\n<dl>\n");
    for (word, meaning) in GLOSSARY {
        term(&mut out, word, meaning);
    }
    out.push_str("</dl></details>\n");
    out.push_str("<h2>Verdicts</h2>\n<div class=\"scroll\"><table class=\"cards\"><thead><tr><th>claim</th><th></th><th>verdict</th><th>what it comes to</th></tr></thead><tbody>\n");
    for judgement in &debate.judgements {
        let claim = &judgement.claim;
        out.push_str(&format!(
            "<tr><td class=\"id\"><a href=\"#{id}\">{id}</a></td><td>{}</td><td data-label=\"verdict\">{}</td><td data-label=\"comes to\">{}</td></tr>\n",
            escape(&claim.title),
            badge(judgement.verdict),
            comes_to(judgement),
            id = claim.id,
        ));
    }
    out.push_str("</tbody></table></div>\n");
    if !debate.own {
        out.push_str("<p class=\"small soft\">P: propositions of the documentation and the thread. C: the thread's claims in one sentence each. X: cases that it left open.</p>\n");
    }
    out.push_str("<dl class=\"verdicts\">\n");
    for verdict in Verdict::ALL {
        out.push_str(&format!(
            "<dt>{}</dt><dd>{}</dd>\n",
            badge(verdict),
            escape(verdict.meaning())
        ));
    }
    out.push_str("</dl>\n");
    if !debate.plots.is_empty() {
        out.push_str("<h2>Figures</h2>\n");
        for plot in &debate.plots {
            out.push_str(&format!(
                "<figure id=\"figure-{}\">{}<figcaption>{} <code>{}</code></figcaption></figure>\n",
                plot.name,
                inline(&plot.svg),
                escape(&plot.caption),
                escape(&plot.command)
            ));
        }
    }
    out.push_str("<h2>The claims, one by one</h2>\n");
    for judgement in &debate.judgements {
        one(&mut out, judgement);
    }
    out.push_str("</main></body></html>\n");
    out
}

/// A drawing without what only a file of its own needs.
fn inline(svg: &str) -> &str {
    svg.find("<svg").map_or(svg, |at| &svg[at..])
}

fn term(out: &mut String, name: &str, text: &str) {
    out.push_str(&format!("<dt>{name}</dt><dd>{}</dd>\n", escape(text)));
}

fn one(out: &mut String, judgement: &Judgement) {
    let claim = &judgement.claim;
    out.push_str(&format!(
        "<section class=\"claim\" id=\"{0}\"><h3>{0}: {1} {2}</h3>\n<dl>\n",
        claim.id,
        escape(&claim.title),
        badge(judgement.verdict)
    ));
    term(out, "said", &claim.said);
    term(out, "claim", &claim.claim);
    term(out, "refuted by", &claim.refuted_by);
    if let Some(condition) = &claim.condition {
        term(out, "exactly if", condition);
    }
    term(out, "answer", &claim.answer);
    if let Some(figure) = &judgement.figure {
        out.push_str(&format!(
            "<dt>figure</dt><dd>{} <code>{}</code></dd>\n",
            escape(&figure.text),
            escape(&figure.command)
        ));
    }
    if let Some(open) = &claim.open {
        term(out, "left open", open);
    }
    term(out, "evidence", &coverage(judgement));
    if let Some(caveat) = caveat(judgement) {
        term(out, "but", &caveat);
    }
    out.push_str("</dl>\n");
    for row in by_case(judgement) {
        case(out, judgement, &row);
    }
    if !judgement.calls.is_empty() {
        calls(out, judgement);
    }
    out.push_str("</section>\n");
}

fn case(out: &mut String, judgement: &Judgement, row: &[&Evidence]) {
    let case = &judgement.claim.cases[row[0].case];
    let word = match row[0].outcome() {
        Some(Outcome::Holds) => "nothing is lost".to_owned(),
        Some(Outcome::Breaks(invariant)) => format!("violated: {}", invariant.name()),
        None => "inconclusive".into(),
    };
    let outside = if case.within {
        ""
    } else {
        " (outside the condition)"
    };
    out.push_str(&format!(
        "<details><summary><b>{}</b>: {}{outside} <span class=\"soft\">{}</span></summary>\n",
        escape(&word),
        escape(&case.sentence),
        escape(&bounds(row[0]))
    ));
    out.push_str("<div class=\"scroll\"><table class=\"small cards\"><thead><tr><th>machine</th><th>states</th><th>transitions</th><th>depth</th><th>trace</th></tr></thead><tbody>\n");
    for evidence in row {
        let name = &evidence.scenario.name;
        let trace = if evidence.steps.is_empty() {
            "none exists".to_owned()
        } else {
            format!(
                "<a href=\"traces/{name}.trace.jsonl\">{} blocks, {} steps</a>",
                evidence.blocks(),
                evidence.steps.len()
            )
        };
        out.push_str(&format!(
            "<tr><td><a href=\"scenarios/{name}.toml\">{}</a></td><td data-label=\"states\">{}</td><td data-label=\"transitions\">{}</td><td data-label=\"depth\">{}</td><td data-label=\"trace\">{trace}</td></tr>\n",
            evidence.on.slug(),
            grouped(evidence.decision.states),
            grouped(evidence.decision.transitions),
            evidence.decision.depth
        ));
    }
    out.push_str("</tbody></table></div>\n");
    if !row[0].scenario.scaled.is_empty() {
        out.push_str(&format!(
            "<p class=\"small soft\">scaled: {}</p>\n",
            escape(&row[0].scenario.scaled.join("; "))
        ));
    }
    if let Some(lanes) = row[0].lanes() {
        lane_table(out, &lanes);
    }
    out.push_str(&format!(
        "<p class=\"small\">reproduce: <code>dirtysim check scenarios/{}.toml</code></p></details>\n",
        row[0].scenario.name
    ));
}

fn lane_table(out: &mut String, lanes: &Lanes) {
    out.push_str("<div class=\"scroll\"><table class=\"lanes cards\"><thead><tr>");
    for actor in &lanes.names {
        out.push_str(&format!("<th>{actor}</th>"));
    }
    let page = lanes.page.as_deref().unwrap_or("the pages");
    out.push_str(&format!("<th>{}</th></tr></thead><tbody>\n", escape(page)));
    for block in &lanes.blocks {
        out.push_str("<tr>");
        for actor in &lanes.names {
            if *actor == block.who {
                out.push_str(&format!(
                    "<td data-label=\"{actor}\">{}</td>",
                    escape(&block.what)
                ));
            } else {
                out.push_str("<td class=\"off\"></td>");
            }
        }
        out.push_str(&format!(
            "<td class=\"note\">{}</td></tr>\n",
            escape(&block.page)
        ));
    }
    out.push_str("</tbody></table></div>\n");
    out.push_str(&format!("<p>{}</p>\n", escape(&lanes.conclusion.join(" "))));
}

fn calls(out: &mut String, judgement: &Judgement) {
    out.push_str(&format!(
        "<details><summary><b>{} calls</b>, each run to its end</summary>\n<div class=\"scroll\"><table class=\"small cards\"><thead><tr><th>call</th><th>the claim says</th><th>answer</th></tr></thead><tbody>\n",
        judgement.calls.len()
    ));
    for call in &judgement.calls {
        out.push_str(&format!(
            "<tr><td>{}</td><td data-label=\"says\">{}</td><td data-label=\"answer\">{}{}</td></tr>\n",
            escape(&call.call),
            escape(&call.says),
            escape(&call.got),
            if call.agrees() { "" } else { " (otherwise)" }
        ));
    }
    out.push_str(&format!(
        "</tbody></table></div>\n<p class=\"small\">reproduce: <code>dirtysim debate {}</code></p></details>\n",
        judgement.claim.id
    ));
}
