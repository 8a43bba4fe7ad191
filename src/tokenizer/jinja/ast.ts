/** The nodes of a template. Names and precedence are jinja2's. */

interface At {
  readonly line: number;
}

export type BinaryOperator = "+" | "-" | "*" | "/" | "//" | "%" | "**";
export type ComparisonOperator = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in";

export interface Arguments {
  readonly args: readonly Expression[];
  readonly kwargs: readonly { readonly key: string; readonly value: Expression }[];
  readonly dynArgs?: Expression;
  readonly dynKwargs?: Expression;
}

export type Name = At & { readonly type: "Name"; readonly name: string };

export type Call = At & Arguments & { readonly type: "Call"; readonly node: Expression };

/** `node` is missing if a block is filtered. */
export type Filter = At & Arguments & { readonly type: "Filter"; readonly name: string; readonly node?: Expression };

export type Slice = At & {
  readonly type: "Slice";
  readonly node: Expression;
  readonly start?: Expression;
  readonly stop?: Expression;
  readonly step?: Expression;
};

export type Expression =
  | Name
  | Call
  | Filter
  | Slice
  | (At & { readonly type: "Const"; readonly value: null | boolean | string })
  | (At & { readonly type: "Number"; readonly value: number; readonly isFloat: boolean })
  | (At & { readonly type: "List" | "Tuple"; readonly items: readonly Expression[] })
  | (At & {
      readonly type: "Dict";
      readonly items: readonly { readonly key: Expression; readonly value: Expression }[];
    })
  | (At & { readonly type: "Getattr"; readonly node: Expression; readonly attr: string })
  | (At & { readonly type: "Getitem"; readonly node: Expression; readonly arg: Expression })
  | (At & Arguments & { readonly type: "Test"; readonly name: string; readonly node: Expression })
  | (At & { readonly type: "Not" | "Neg" | "Pos"; readonly node: Expression })
  | (At & { readonly type: "And" | "Or"; readonly left: Expression; readonly right: Expression })
  | (At & {
      readonly type: "Binary";
      readonly operator: BinaryOperator;
      readonly left: Expression;
      readonly right: Expression;
    })
  | (At & { readonly type: "Concat"; readonly nodes: readonly Expression[] })
  | (At & {
      readonly type: "Compare";
      readonly expr: Expression;
      readonly ops: readonly { readonly operator: ComparisonOperator; readonly expr: Expression }[];
    })
  | (At & {
      readonly type: "Condition";
      readonly test: Expression;
      readonly value: Expression;
      readonly otherwise?: Expression;
    });

export type Target =
  | Name
  | (At & { readonly type: "TupleTarget"; readonly items: readonly Target[] })
  | (At & { readonly type: "NamespaceTarget"; readonly name: string; readonly attr: string });

export interface Signature {
  readonly args: readonly Name[];
  /** Of the last ones. */
  readonly defaults: readonly Expression[];
}

export type For = At & {
  readonly type: "For";
  readonly target: Target;
  readonly iter: Expression;
  readonly body: readonly Statement[];
  readonly otherwise: readonly Statement[];
  readonly test?: Expression;
  readonly isRecursive: boolean;
};

export type Macro = At &
  Signature & { readonly type: "Macro"; readonly name: string; readonly body: readonly Statement[] };

/** `call` is missing for `{% generation %}`, which shows its body as it is. */
export type CallBlock = At &
  Signature & {
    readonly type: "CallBlock";
    readonly call?: Call;
    readonly body: readonly Statement[];
  };

export type Statement =
  | For
  | Macro
  | CallBlock
  | (At & { readonly type: "Text"; readonly text: string })
  | (At & { readonly type: "Output"; readonly node: Expression })
  | (At & {
      readonly type: "If";
      readonly test: Expression;
      readonly body: readonly Statement[];
      readonly otherwise: readonly Statement[];
    })
  | (At & { readonly type: "Assign"; readonly target: Target; readonly node: Expression })
  | (At & {
      readonly type: "AssignBlock";
      readonly target: Target;
      readonly filter?: Filter;
      readonly body: readonly Statement[];
    })
  | (At & { readonly type: "FilterBlock"; readonly filter: Filter; readonly body: readonly Statement[] })
  | (At & {
      readonly type: "With";
      readonly targets: readonly Target[];
      readonly values: readonly Expression[];
      readonly body: readonly Statement[];
    })
  | (At & { readonly type: "Break" | "Continue" });
