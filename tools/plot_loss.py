"""Draws a training log as SVG: python3 tools/plot_loss.py LOG.jsonl OUT.svg"""

import json
import sys

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 320, 50, 40, 16


def main():
    records = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
    train = [(r["step"], r["loss"]) for r in records if "loss" in r]
    held = [(r["step"], r["eval_loss"]) for r in records if r.get("eval_loss") is not None]
    last = train[-1][0]
    low = int(min(v for _, v in train + held))
    high = int(max(v for _, v in train + held)) + 1
    x = lambda step: LEFT + (WIDTH - LEFT - 12) * step / last
    y = lambda loss: TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)
    path = lambda points: " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tick in range(low, high + 1):
        out.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - 12}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    for part in range(5):
        step = last * part // 4
        out.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{step}</text>')
    out.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    out.append(f'<polyline points="{path(train)}" fill="none" stroke="#8ab" stroke-width="1"/>')
    out.append(f'<polyline points="{path(held)}" fill="none" stroke="#c30" stroke-width="2"/>')
    for s, v in held:
        out.append(f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="#c30"/>')
    out.append(f'<text x="{WIDTH - 20}" y="{TOP + 14}" text-anchor="end" fill="#579">loss of the batch, nats a token</text>')
    out.append(f'<text x="{WIDTH - 20}" y="{TOP + 30}" text-anchor="end" fill="#c30">held-out loss</text>')
    out.append("</svg>")
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


main()
