"""How the page looks, and its one script: tables that sort."""

STYLE = """
:root{--bg:#fbfbfa;--card:#fff;--ink:#1c1e21;--soft:#6a6f76;--rule:#e4e5e3;--ends:#0000000a;--bad:#b3261e;--link:#0b62c4;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b8479a;--c4:#8c6d00;--c5:#3f7fbf;--c6:#7a4fb5;--c7:#5a5a5a}
@media(prefers-color-scheme:dark){:root{--bg:#15171a;--card:#1d2024;--ink:#e8e9ea;--soft:#9aa0a8;--rule:#31353b;
--ends:#ffffff0d;--bad:#ff8a80;--link:#7ab8ff;--c0:#56b4e9;--c1:#ff9b54;--c2:#3ecf9b;--c3:#f08fd0;--c4:#f0c93a;
--c5:#8db8ee;--c6:#b99af0;--c7:#b8b8b8}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:28px 24px 64px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:19px;margin:40px 0 12px}h3{font-size:16px;margin:24px 0 8px}h4{font-size:15px;margin:0 0 2px}
.lead{margin:0;font-size:17px}.meta,.note{color:var(--soft);font-size:13px;margin:6px 0}
code{font-size:12.5px;overflow-wrap:anywhere}.bad{color:var(--bad)}
.keys{margin:12px 0 0;display:flex;flex-wrap:wrap;gap:4px 18px;font-size:14px}
.key i{display:inline-block;width:18px;height:3px;border-radius:2px;background:currentColor;margin-right:7px;
vertical-align:middle}
.wide{overflow-x:auto;border:1px solid var(--rule);border-radius:8px;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th,td{text-align:left;padding:5px 12px;border-top:1px solid var(--rule);vertical-align:baseline;font-weight:400}
thead th{border-top:0;font-weight:600;white-space:nowrap;vertical-align:bottom}
tbody th{white-space:nowrap}tr.first th,tr.first td{border-top-width:2px}
small{color:var(--soft);font-size:12px;font-weight:400}th small,td small{display:block}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.num small{display:inline;margin-left:3px}
thead .num small,.sortable .num small{display:block;margin:0}.soft{color:var(--soft)}
.unit{color:var(--soft);white-space:nowrap}.way{color:var(--soft)}.says{min-width:320px}
.sortable thead th{cursor:pointer}.sortable tbody th{position:sticky;left:0;background:var(--card)}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(360px,1fr));gap:14px}
figure{margin:0}
.plots figure{border:1px solid var(--rule);border-radius:8px;background:var(--card);padding:10px 12px 6px;display:flex;
flex-direction:column;justify-content:space-between;gap:6px}
figcaption{line-height:1.35}svg{width:100%;height:auto;display:block}
.ends{fill:var(--ends)}.grid{stroke:var(--rule)}.tick{fill:var(--soft);font-size:10.5px}
.line{fill:none;stroke:currentColor;stroke-width:1.6;stroke-linejoin:round}.band{fill:currentColor;opacity:.16}
.dot{fill:currentColor}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
.c6{color:var(--c6)}.c7{color:var(--c7)}
article{border:1px solid var(--rule);border-radius:8px;background:var(--card);padding:12px 14px;margin:0 0 14px}
article h4{overflow-wrap:anywhere}article.failed{border-color:var(--bad)}tr.failed th{color:var(--bad)}
.prompt{margin:0;font-style:italic}
.sheet{display:grid;grid-template-columns:repeat(12,1fr);gap:4px;margin-top:8px}
.sheet img{width:100%;display:block;border-radius:3px;image-rendering:pixelated}
.sheet figcaption{font-size:11px;color:var(--soft);text-align:center}
.slit img{width:100%;height:72px;display:block;border-radius:3px;image-rendering:pixelated;margin-top:4px}
details{margin-top:8px;font-size:13.5px}summary{cursor:pointer;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;margin:8px 0 0}dt{color:var(--soft)}dd{margin:0}
ul{padding-left:20px}
@media(max-width:760px){body{padding:16px 12px}.sheet{grid-template-columns:repeat(6,1fr)}
.plots{grid-template-columns:1fr}dl{grid-template-columns:1fr}}
"""

SCRIPT = """
for(const table of document.querySelectorAll("table.sortable"))table.querySelectorAll("thead th").forEach((head,at)=>{
let up=false;head.addEventListener("click",()=>{up=!up;const body=table.tBodies[0];
const of=row=>{const cell=row.cells[at];return cell.dataset.v===undefined?(cell.classList.contains("num")?-Infinity:
cell.textContent):+cell.dataset.v};
[...body.rows].sort((a,b)=>{const x=of(a),y=of(b);return(x<y?-1:x>y?1:0)*(up?1:-1)}).forEach(row=>body.append(row))})})
"""
