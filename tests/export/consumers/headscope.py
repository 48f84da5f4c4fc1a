import json


def loaded(path, model):
    told = json.loads(path.read_text())
    return [[said(told["rules"][i]) for i in row] for row in told["heads"]]


def said(rule):
    numbers = {name: value for name, value in rule.items() if name != "rule"}
    if rule["rule"] == "full":
        return ("full",)
    if rule["rule"] == "streaming":
        return ("streaming", *numbers.values())
    return (rule["rule"], *numbers.values())
